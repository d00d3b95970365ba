"""Where masks come from, a service or a function, and how the refresh process makes that source anew."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from masksmith.patterns import Pattern
from masksmith_client._client import Client, ClientConfiguration
from masksmith_client._errors import ClientError, InputError, JobFailedError, TimeoutError
from masksmith_client._jobs import Job
from masksmith_client.results.masks import Masks
from masksmith_client.submission.weights import Weight
from masksmith_wire.dtypes import to_numpy

from .messages import PROVED, LayerResult
from .shared_memory import Bools, Bytes, Slot

PIECE_BYTES = 512 * 1024
OUTAGE_S = 10.0
"""Longest wait for a service that is out of reach: after it, masks of newer weights are worth more."""

Numbers = npt.NDArray[np.generic]


@dataclass(frozen=True)
class LayerValues:
    """One layer: the bytes of its weights, or of its scores if `are_scores`."""

    slot: Slot
    values: Bytes
    are_scores: bool

    def numbers(self) -> Numbers:
        """Give the values as an array; bfloat16 is widened."""
        return to_numpy(self.values.data, self.slot.dtype, self.slot.shape)

    def scores(self) -> Numbers:
        """Give the scores."""
        numbers = self.numbers()
        return numbers if self.are_scores else np.abs(numbers)

    def with_scores(self, scores: Numbers) -> LayerValues:
        """Give the layer with these scores instead."""
        dtype = {"float64": "F64", "float16": "F16"}.get(scores.dtype.name, "F32")
        data = np.ascontiguousarray(scores).reshape(-1).view(np.uint8)
        return LayerValues(replace(self.slot, dtype=dtype), data, are_scores=True)

    def weight(self) -> Weight:
        """Give it in the form that uploads take."""
        data = self.values.data
        pieces = [data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES)]
        return Weight(self.slot.name, self.slot.dtype, self.slot.shape, lambda: iter(pieces))


class Source(Protocol):
    """Computes masks; calls `on_mask` with each, and gives their proofs or errors by name."""

    def solve(
        self, layers: list[LayerValues], pattern: Pattern, timeout_s: float, on_mask: Callable[[str, Bools], None]
    ) -> Mapping[str, LayerResult]:
        """Compute the best mask of each layer.

        Raises:
            ClientError: If there is none at all.
        """


@dataclass(frozen=True)
class Service:
    """A masksmith service."""

    client: Client

    def solve(
        self, layers: list[LayerValues], pattern: Pattern, timeout_s: float, on_mask: Callable[[str, Bools], None]
    ) -> Mapping[str, LayerResult]:
        """Upload what the service lacks, wait, download, and delete the job."""
        weights = {one.slot.name: one.weight() for one in layers}
        scores = "given" if layers[0].are_scores else "magnitude"
        job = self.client.jobs.submit(weights, pattern, progress=False, scores=scores)
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
            # A run makes thousands of such jobs; where the service is gone, its retention deletes them later.
            with contextlib.suppress(ClientError):
                job.delete()

    def _masks(self, job: Job, timeout_s: float) -> Masks:
        try:
            return job.wait(timeout_s).masks()
        except JobFailedError:
            if not any(report.error is None and report.status for report in job.report.values()):
                raise
            return job.masks()


@dataclass(frozen=True)
class Function:
    """A function of scores and pattern that gives a mask, or a `Solution`; as `masksmith.solve` is."""

    call: Callable[..., Any]

    def solve(
        self, layers: list[LayerValues], pattern: Pattern, timeout_s: float, on_mask: Callable[[str, Bools], None]
    ) -> Mapping[str, LayerResult]:
        """Call the function for one layer after the other."""
        results = {}
        for one in layers:
            try:
                solution = self.call(one.scores(), pattern)
            except ValueError as error:
                results[one.slot.name] = LayerResult(error=str(error))
                continue
            mask = _as_mask(solution, one.slot)
            on_mask(one.slot.name, mask)
            results[one.slot.name] = _result(solution)
        return results


class Start(BaseModel):
    """The first line that the refresh process reads; without a client the library solves in that process."""

    client: ClientConfiguration | None
    slots: list[Slot]
    fd: int
    cores: list[int] | None

    def source(self) -> Source:
        """Make the source of masks."""
        if self.client is not None:
            url, token, timeout_s, retry = self.client.url, self.client.token, self.client.timeout_s, self.client.retry
            retry = replace(retry, outage_s=min(retry.outage_s, OUTAGE_S))
            return Service(Client(url, token, timeout_s=timeout_s, retry=retry))
        import masksmith

        return Function(masksmith.solve)


def _as_mask(solution: Any, slot: Slot) -> Bools:
    mask = np.asarray(getattr(solution, "mask", solution))
    if mask.dtype != np.bool_ or mask.shape != slot.shape:
        raise InputError(
            f"masks: {slot.name!r} got {mask.dtype} of shape {list(mask.shape)}, expected bool of {list(slot.shape)}"
        )
    return mask


def _result(report: Any) -> LayerResult:
    error = getattr(report, "error", None)
    if error is not None:
        return LayerResult(error=error.message)
    return LayerResult.model_validate({name: getattr(report, name, None) for name in PROVED})
