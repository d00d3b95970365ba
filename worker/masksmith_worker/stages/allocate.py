"""Allocate stage: divides a budget between the tensors of a job, before the first shard is solved.

A division takes one or more passes; each pass measures all shards of the job's tensors. Each worker that is about to
solve a shard goes through all passes, unless the divided budget is stored already. In each pass it begins with its own
shard, loads the measurements that other workers have stored, and makes and stores only those that are missing. So the
workers divide the measurements among them without waiting for each other, and if a worker is killed, another one makes
the measurements that the killed worker did not store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from pydantic import BaseModel

import masksmith as ms
from masksmith.allocation import Allocator, Decision, allocator_for, measure_from
from masksmith.solvers import by_name
from masksmith_state.blobs.names import statistic_name
from masksmith_state.errors import DamagedBlobError
from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.shards import PlannedTensor, Shard
from masksmith_wire.digests import digest_document
from masksmith_wire.scores import SCORES_VERSION

from .load import DamagedUploadError, UploadMissingError
from .memory import InsufficientMemoryError
from .score import Scoring
from .work import ShardWork

_MEASUREMENTS_VERSION = 2
"""Increased whenever stored measurements or allocations of an earlier version must not be used."""


class BudgetError(Exception):
    """A budget cannot be met; or it cannot be divided, because a score is invalid or an upload no longer exists."""


class Allocation(BaseModel):
    """A divided budget: the pattern of each tensor by name, and the relative optimality gap of the division."""

    patterns: dict[str, str]
    gap: float


class BudgetAllocator:
    """Divides a job's budget between its tensors.

    Args:
        work: A shard of the job.
        plan: The job's plan.
        read_shards: Reads all shards of the job's tensors, by index.
    """

    def __init__(self, work: ShardWork, plan: MasksPlan, read_shards: Callable[[], Mapping[int, Shard]]) -> None:
        self._store, self._specification, self._check = work.store, work.specification, work.check
        self._input_reader = work.inputs
        self._tensors, self._read_shards = plan.tensors, read_shards
        # If the scores of any tensor are float64, those of all tensors are measured in float64.
        self._has_doubles = any(_is_double(tensor) for tensor in self._tensors)

    def allocate(self, index: int) -> Allocation:
        """Compute the pattern of every tensor, or load it from the store; `index` is the first shard to measure.

        Raises:
            BudgetError: If the budget cannot be met, any tensor has an invalid score, or an upload no longer exists.
            DamagedUploadError: If the upload of any tensor is damaged; the error names the tensor.
            InsufficientMemoryError: If a Gram matrix of any tensor does not fit; the error names the tensor.
        """
        # "shared": the budget as it is shared out between the tensors.
        name = statistic_name(self._key("shared", [[tensor.name, tensor.inputs] for tensor in self._tensors]))
        try:
            return Allocation.model_validate_json(self._store.get_sealed(name))
        except (FileNotFoundError, DamagedBlobError):
            pass
        try:
            allocation = self._allocate(index)
        except ms.MasksmithError as error:
            raise BudgetError(str(error)) from None
        except UploadMissingError:
            raise BudgetError("an upload of the job's tensors no longer exists; send them again") from None
        self._store.put_sealed(name, allocation.model_dump_json().encode())
        return allocation

    def _allocate(self, index: int) -> Allocation:
        specification, shards = self._specification, self._read_shards()
        assert specification.budget is not None
        # The result of the previous pass over the model: None before the first pass, a Decision after the last.
        state: Any = None
        shapes = {tensor.name: tuple(tensor.shape) for tensor in self._tensors}
        allocator = allocator_for(specification.pattern, specification.budget, shapes, double=self._has_doubles)
        while not isinstance(state, Decision):
            # The measurements are stored in this order; `_merged` loads them in the order of the shards.
            for shard_index in _rotated(index, shards):
                self._measure(allocator, shards[shard_index], state)
            state = allocator.decide(self._merged(allocator, shards, state), state)
        return Allocation(patterns={name: str(pattern) for name, pattern in state.patterns.items()}, gap=state.gap)

    def _merged(self, allocator: Allocator, shards: Mapping[int, Shard], state: Any) -> dict[str, Any]:
        """The measurement of each tensor, merged from those of its shards."""
        by_tensor: dict[int, list[Any]] = {}
        for shard_index in sorted(shards):
            shard = shards[shard_index]
            by_tensor.setdefault(shard.tensor, []).append(self._measure(allocator, shard, state))
        return {tensor.name: allocator.merge(by_tensor[index]) for index, tensor in enumerate(self._tensors)}

    def _measure(self, allocator: Allocator, shard: Shard, state: Any) -> Any:
        """Load the measurement of a shard, or compute and store it."""
        self._check()
        tensor = self._tensors[shard.tensor]
        inputs = [tensor.inputs, shard.first, shard.last, self._has_doubles, repr(state)]
        name = statistic_name(self._key("measure", inputs))
        try:
            return np.frombuffer(self._store.get_sealed(name), "<f8")
        except (FileNotFoundError, DamagedBlobError):
            with _naming(tensor):
                scoring = Scoring(self._input_reader, tensor, self._specification.scores, self._check)
                scores = scoring.rows(shard.first, shard.last)
            measurement = measure_from(allocator, scores, state, tensor.name, shard.first)
            self._store.put_sealed(name, measurement.astype("<f8").tobytes())
            return measurement

    def _key(self, step: str, inputs: list[Any]) -> str:
        """Key of a measurement or allocation in the store."""
        options = self._specification.options.model_dump(
            include={"pattern", "axis", "ragged", "scores", "budget", "floors"}
        )
        # The version of `auto` changes with the version of any solver that `auto` may choose.
        version = [_MEASUREMENTS_VERSION, SCORES_VERSION, by_name("auto").version]
        return digest_document({"budget": step, "inputs": inputs, "options": options, "version": version})


@contextmanager
def _naming(tensor: PlannedTensor) -> Iterator[None]:
    """Name the tensor in errors of its inputs: the shard that divides the budget may belong to another tensor."""
    try:
        yield
    except DamagedUploadError as error:
        raise DamagedUploadError(error.digest, tensor.name) from None
    except InsufficientMemoryError as error:
        raise InsufficientMemoryError(f"the budget cannot be divided: tensor {tensor.name!r}: {error}") from None


def _rotated(first: int, shards: Mapping[int, Shard]) -> list[int]:
    """Indices of all shards in ascending order from `first` on, then those before `first`."""
    order = sorted(shards)
    return [index for index in order if index >= first] + [index for index in order if index < first]


def _is_double(tensor: PlannedTensor) -> bool:
    """Whether the request's scores for a tensor are float64; if there are none, whether the tensor is float64."""
    if tensor.statistic is not None and tensor.statistic.name == "scores":
        return tensor.statistic.dtype == "F64"
    return tensor.dtype == "F64"
