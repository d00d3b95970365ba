"""Sources of masks (a service, a function), and the configuration from which a refresh process creates its source."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from masksmith.patterns import Pattern
from masksmith_client._client import Client, ClientConfiguration
from masksmith_client._errors import ClientError, InputError, JobFailedError, TimeoutError
from masksmith_client._jobs import Job
from masksmith_client.results.masks import Masks
from masksmith_client.submission.streamed_tensor import StreamedTensor
from masksmith_wire.dtypes import to_numpy
from masksmith_wire.totals import total_retained

from .messages import RESULT_FIELDS, LayerResult, Message
from .shared_memory import Bools, Bytes, LayerSlot

PIECE_BYTES = 512 * 1024
"""Size of the pieces in which values are uploaded."""
OUTAGE_S = 10.0
"""Maximum seconds for which a refresh process retries an unreachable service.

After that the request fails, and the next one has newer weights.
"""

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class LayerValues:
    """The values of one layer as bytes: its scores if `are_scores`, else its weights."""

    slot: LayerSlot
    values: Bytes
    are_scores: bool

    def array(self) -> Array:
        """Return the values as an array; bfloat16 is converted to float32."""
        return to_numpy(self.values.data, self.slot.dtype, self.slot.shape)

    def scores(self) -> Array:
        """Return the scores; the scores of weights are magnitudes."""
        array = self.array()
        return array if self.are_scores else np.abs(array)

    def with_scores(self, scores: Array) -> LayerValues:
        """Return a copy with these scores as values."""
        dtype = {"float64": "F64", "float16": "F16"}.get(scores.dtype.name, "F32")
        data = np.ascontiguousarray(scores).reshape(-1).view(np.uint8)
        return LayerValues(replace(self.slot, dtype=dtype), data, are_scores=True)

    def streamed_tensor(self) -> StreamedTensor:
        """Return the values as a tensor to upload."""
        data = self.values.data
        pieces = [data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES)]
        slot = self.slot
        return StreamedTensor(slot.name, slot.dtype, slot.shape, lambda: iter(pieces), layout=slot.layout)


class MaskSource(Protocol):
    """Computes the masks of layers."""

    def solve(
        self, layers: list[LayerValues], pattern: Pattern, timeout_s: float, on_mask: Callable[[str, Bools], None]
    ) -> Mapping[str, LayerResult]:
        """Compute the best mask of each layer.

        Args:
            layers: The layers' values.
            pattern: The pattern of the masks.
            timeout_s: Timeout in seconds, for a service; a function has none.
            on_mask: Called with the name and the mask of each layer that gets a mask.

        Returns:
            The result of each layer, by name.

        Raises:
            ClientError: If a service refuses, cannot be reached, returns no mask of any layer, or takes too long.
        """


@dataclass(frozen=True)
class ServiceSource:
    """Solves masks by jobs of a masksmith service."""

    client: Client

    def solve(
        self, layers: list[LayerValues], pattern: Pattern, timeout_s: float, on_mask: Callable[[str, Bools], None]
    ) -> Mapping[str, LayerResult]:
        """Submit a job, wait for it, and download its masks; cancel it after the timeout, and delete it in any case."""
        weights = {values.slot.name: values.streamed_tensor() for values in layers}
        scores = "given" if layers[0].are_scores else "magnitude"
        # All names are passed: by default, the service would leave an output head dense, even if the user selected it.
        job = self.client.jobs.submit(
            weights, pattern, progress=False, scores=scores, layers=list(weights), priority="interactive"
        )
        try:
            masks = self._masks(job, timeout_s)
            for name in masks:
                on_mask(name, masks[name])
            masks.close()
            return {name: _result(report) for name, report in job.report.items()}
        except TimeoutError:
            with contextlib.suppress(ClientError):
                job.cancel()
            raise
        finally:
            # A training run creates thousands of jobs. A job that is not deleted here is deleted by the service later.
            with contextlib.suppress(ClientError):
                job.delete()

    def _masks(self, job: Job, timeout_s: float) -> Masks:
        """Wait for a job and download its masks; a job that failed for some of its layers has masks of the others."""
        try:
            return job.wait(timeout_s).masks()
        except JobFailedError:
            if not any(report.error is None and report.status for report in job.report.values()):
                raise
            return job.masks()


@dataclass(frozen=True)
class FunctionSource:
    """Solves masks by a function of scores and pattern, such as `masksmith.solve`.

    The function returns a mask, or a `Solution`. It is called with the scores of one matrix or fused part, as
    `[out, in, *kernel]`, whatever the order of the dimensions in the layer's weight.
    """

    call: Callable[..., Any]

    def solve(
        self, layers: list[LayerValues], pattern: Pattern, timeout_s: float, on_mask: Callable[[str, Bools], None]
    ) -> Mapping[str, LayerResult]:
        """Solve one layer after the other; a ValueError becomes the error of its layer. `timeout_s` is not used."""
        results = {}
        for values in layers:
            try:
                mask, results[values.slot.name] = self._solve(values, pattern)
            except ValueError as error:
                results[values.slot.name] = LayerResult(error=str(error))
                continue
            on_mask(values.slot.name, mask)
        return results

    def _solve(self, values: LayerValues, pattern: Pattern) -> tuple[Bools, LayerResult]:
        mask = np.empty(values.slot.shape, np.bool_)

        def call(scores: Array, pattern: Pattern) -> Any:
            return self.call(np.ascontiguousarray(scores), pattern)

        return mask, solve_matrices(call, values.scores(), mask, values.slot, pattern, _as_mask)


def solve_matrices(
    call: Callable[[Any, Pattern], Any],
    scores: Any,
    mask: Any,
    slot: LayerSlot,
    pattern: Pattern,
    as_mask: Callable[[Any, LayerSlot, tuple[int, ...]], Any],
) -> LayerResult:
    """Solve each matrix of a layer on its own, and its fused parts one by one if `Layout.row_ranges` divides them.

    Args:
        call: Returns the solution of scores `[out, in, *kernel]` under a pattern.
        scores: The layer's scores, an array or a tensor.
        mask: The layer's mask, which is written; an array or a tensor, as the scores.
        slot: Name, shape and axes of the layer.
        pattern: The pattern.
        as_mask: Returns the mask of a solution, after checking it; called with solution, `slot` and expected shape.

    Returns:
        The result of the whole layer; see `sum_of_parts`.
    """
    layout, results = slot.layout, []
    for matrix, mask_matrix in zip(layout.matrices(scores), layout.matrices(mask), strict=True):
        for first, last in layout.row_ranges(pattern, slot.shape):
            solution = call(matrix[first:last], pattern)
            mask_matrix[first:last] = as_mask(solution, slot, matrix[first:last].shape)
            results.append(_result(solution))
    return results[0] if len(results) == 1 else sum_of_parts(results)


class WorkerConfiguration(Message):
    """The configuration of the refresh process; the first line of its input.

    Attributes:
        client: The configuration of the service's client; None if the refresh process solves with the library.
        slots: The layers in the shared memory.
        fd: File descriptor of the shared memory; the process inherits it.
        cores: Processors that the process may use; None for those of its parent.
    """

    client: ClientConfiguration | None
    slots: list[LayerSlot]
    fd: int
    cores: list[int] | None

    def create_source(self) -> MaskSource:
        """Create the source of masks."""
        if self.client is not None:
            retry = replace(self.client.retry, outage_s=min(self.client.retry.outage_s, OUTAGE_S))
            client = Client(self.client.url, self.client.token, timeout_s=self.client.timeout_s, retry=retry)
            return ServiceSource(client)
        import masksmith

        return FunctionSource(masksmith.solve)


def _as_mask(solution: Any, slot: LayerSlot, shape: tuple[int, ...]) -> Bools:
    mask = np.asarray(getattr(solution, "mask", solution))
    if mask.dtype != np.bool_ or mask.shape != shape:
        raise InputError(
            f"the mask of {slot.name!r} is {mask.dtype} of shape {list(mask.shape)}; "
            f"expected bool of shape {list(shape)}"
        )
    return mask


def sum_of_parts(parts: list[LayerResult]) -> LayerResult:
    """Sum the results of a layer's matrices or fused parts, none of which has an error.

    An objective, bound, retained share or total score that is None for one part is None for the layer. The retained
    share is also None if an objective is None. The gap is 0 if the gaps of all parts are 0; else it is None if the
    layer's objective or bound is None. The status is that of all parts, or `feasible` if the parts have different ones.
    """
    objectives, bounds = [part.objective for part in parts], [part.upper_bound for part in parts]
    statuses = {part.status for part in parts}
    objective = None if None in objectives else sum(value for value in objectives if value is not None)
    bound = None if None in bounds else sum(value for value in bounds if value is not None)
    scores = [part.total_score for part in parts]
    gap = None if objective is None or bound is None else max(0.0, bound - objective) / (bound or 1.0)
    if all(part.gap == 0.0 for part in parts):
        gap = 0.0  # The two sums may differ by rounding.
    retained_inputs = [(part.objective, part.retained, part.total_score) for part in parts]
    return LayerResult(
        status=statuses.pop() if len(statuses) == 1 else "feasible",
        objective=objective,
        upper_bound=bound,
        gap=gap,
        retained=None if any(None in values[:2] for values in retained_inputs) else total_retained(retained_inputs),
        total_score=None if None in scores else sum(score for score in scores if score is not None),
    )


def _result(report: Any) -> LayerResult:
    """Make the result from a solution, a service's report of a tensor, or a mask, which has none of the fields."""
    error = getattr(report, "error", None)
    if error is not None:
        return LayerResult(error=error.message)
    return LayerResult.model_validate({name: getattr(report, name, None) for name in RESULT_FIELDS})
