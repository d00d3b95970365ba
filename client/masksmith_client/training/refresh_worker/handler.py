"""Handles refresh requests: skips unchanged layers; solves the others with hysteresis, and counts changed entries."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from blake3 import blake3

from masksmith.patterns import parse
from masksmith_client._errors import ClientError

from .messages import LayerResult, RefreshRequest, RefreshResponse
from .shared_memory import Bools, SharedMemory
from .sources import LayerValues, MaskSource

log = logging.getLogger("masksmith_client.training")


class RefreshHandler:
    """Handles requests for the layers of one shared memory, one request at a time.

    Args:
        source: Computes the masks.
        memory: Holds the layers' values and masks.
    """

    def __init__(self, source: MaskSource, memory: SharedMemory) -> None:
        self._source, self._memory = source, memory
        # Layer name -> digest of the values and options that its mask in the shared memory was computed for.
        self._solved: dict[str, str] = {}

    def handle(self, request: RefreshRequest) -> RefreshResponse:
        """Solve the changed layers of a request, and write their masks to the shared memory.

        Failures are part of the response.
        """
        digests = {name: self._digest(name, request) for name in request.layers}
        changed = [name for name in request.layers if not self._is_solved(name, digests[name])]
        layers = {name: LayerResult(unchanged=True) for name in request.layers if name not in changed}
        try:
            if changed:
                layers |= self._solve(changed, request)
        except ClientError as error:
            return RefreshResponse(step=request.step, failure=str(error))
        except Exception as error:
            log.exception("masks could not be computed")
            return RefreshResponse(step=request.step, failure=f"{type(error).__name__}: {error}")
        self._solved |= {name: digests[name] for name in changed if layers[name].error is None}
        return RefreshResponse(step=request.step, layers=layers)

    def _solve(self, changed: list[str], request: RefreshRequest) -> dict[str, LayerResult]:
        pattern = parse(request.pattern, axis=request.axis, ragged=request.ragged)  # type: ignore[arg-type]
        values = [self._values(name, request) for name in changed]
        flips: dict[str, tuple[int, int]] = {}

        def on_mask(name: str, mask: Bools) -> None:
            previous = self._memory.previous(name)
            flips[name] = int(np.count_nonzero(mask & ~previous)), int(np.count_nonzero(previous & ~mask))
            # The mask that `_solved` refers to is overwritten now.
            self._solved.pop(name, None)
            self._memory.mask(name)[...] = mask

        results = self._source.solve(values, pattern, request.timeout_s, on_mask)
        return {name: _with_flips(name, results, flips) for name in changed}

    def _values(self, name: str, request: RefreshRequest) -> LayerValues:
        values = LayerValues(self._memory.slots[name], self._memory.values(name), request.are_scores)
        if request.hysteresis == 0.0:
            return values
        scores = values.scores()
        dtype = np.dtype(np.float64 if scores.dtype == np.float64 else np.float32)
        bonus = self._memory.previous(name).astype(dtype) * dtype.type(request.hysteresis)
        return values.with_scores(scores.astype(dtype) + bonus)

    def _digest(self, name: str, request: RefreshRequest) -> str:
        options = request.model_copy(update={"step": 0, "layers": []}).model_dump_json()
        return blake3(options.encode()).update(self._memory.values(name).data).hexdigest()

    def _is_solved(self, name: str, digest: str) -> bool:
        # The masks are compared, too: the training loop may have loaded another mask from a checkpoint.
        has_same_digest = self._solved.get(name) == digest
        return has_same_digest and np.array_equal(self._memory.mask(name), self._memory.previous(name))


def _with_flips(name: str, results: Mapping[str, LayerResult], flips: Mapping[str, tuple[int, int]]) -> LayerResult:
    result = results.get(name, LayerResult())
    if name not in flips:
        return result if result.error is not None else LayerResult(error="the solver returned no mask for it")
    added, dropped = flips[name]
    return result.model_copy(update={"added": added, "dropped": dropped})
