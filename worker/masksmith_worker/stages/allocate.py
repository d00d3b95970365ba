"""Allocate stage: divides a budget between the tensors of a job, before the first shard is solved.

Before a shard is solved, unless the budget is divided already, all shards that are not measured yet are measured,
beginning with this one, and the measurements are stored. So workers share the passes over the model without waiting for
each other, and if a worker is killed, another worker makes the measurements that are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

from .load import UploadMissingError
from .score import Scoring
from .work import ShardWork

_MEASUREMENTS_VERSION = 1
"""Increased whenever stored measurements or allocations of an earlier version must not be used."""


class BudgetError(Exception):
    """A budget cannot be met, or not be divided because a score is invalid or an upload no longer exists."""


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
        self._inputs = work.inputs
        self._tensors, self._read_shards = plan.tensors, read_shards

    def allocate(self, index: int) -> Allocation:
        """Compute the pattern of every tensor, or load it from the store; `index` is the first shard to measure.

        Raises:
            BudgetError: If the budget cannot be met, any tensor has an invalid score, or an upload no longer exists.
        """
        name = statistic_name(self._key("shared", [[tensor.name, tensor.inputs] for tensor in self._tensors]))
        try:
            return Allocation.model_validate_json(self._store.get_sealed(name))
        except (FileNotFoundError, DamagedBlobError):
            pass
        try:
            allocation = self._allocate(index)
        except (ms.MasksmithError, UploadMissingError) as error:
            raise BudgetError(str(error)) from None
        self._store.put_sealed(name, allocation.model_dump_json().encode())
        return allocation

    def _allocate(self, index: int) -> Allocation:
        specification, shards = self._specification, self._read_shards()
        assert specification.budget is not None
        # The result of the previous pass over the model: None before the first pass, a Decision after the last.
        state: Any = None
        shapes = {tensor.name: tuple(tensor.shape) for tensor in self._tensors}
        double = any(_is_double(tensor) for tensor in self._tensors)
        allocator = allocator_for(specification.pattern, specification.budget, shapes, double=double)
        while not isinstance(state, Decision):
            for number in _rotated(index, shards):
                self._measure(allocator, shards[number], state)
            state = allocator.decide(self._merged(allocator, shards, state), state)
        return Allocation(patterns={name: str(pattern) for name, pattern in state.patterns.items()}, gap=state.gap)

    def _merged(self, allocator: Allocator, shards: Mapping[int, Shard], state: Any) -> dict[str, Any]:
        """The measurement of each tensor, merged from those of its shards."""
        by_tensor: dict[int, list[Any]] = {}
        for index in sorted(shards):
            by_tensor.setdefault(shards[index].tensor, []).append(self._measure(allocator, shards[index], state))
        return {tensor.name: allocator.merge(by_tensor[number]) for number, tensor in enumerate(self._tensors)}

    def _measure(self, allocator: Allocator, shard: Shard, state: Any) -> Any:
        """Load the measurement of a shard, or compute and store it."""
        self._check()
        tensor = self._tensors[shard.tensor]
        name = statistic_name(self._key("measure", [tensor.inputs, shard.first, shard.last, repr(state)]))
        try:
            return np.frombuffer(self._store.get_sealed(name), "<f8")
        except (FileNotFoundError, DamagedBlobError):
            scores = Scoring(self._inputs, tensor, self._specification.scores, self._check).rows(
                shard.first, shard.last
            )
            measurement = measure_from(allocator, scores, state, tensor.name, shard.first)
            self._store.put_sealed(name, measurement.astype("<f8").tobytes())
            return measurement

    def _key(self, step: str, inputs: list[Any]) -> str:
        """Key of a measurement or allocation in the store."""
        options = self._specification.options.model_dump(
            include={"pattern", "axis", "ragged", "scores", "budget", "floors"}
        )
        version = [_MEASUREMENTS_VERSION, by_name("auto").version]
        return digest_document({"budget": step, "inputs": inputs, "options": options, "version": version})


def _rotated(first: int, shards: Mapping[int, Shard]) -> list[int]:
    """Indices of all shards in order, beginning with `first`."""
    order = sorted(shards)
    return [index for index in order if index >= first] + [index for index in order if index < first]


def _is_double(tensor: PlannedTensor) -> bool:
    """Whether the scores that the request gives for a tensor, or else the tensor itself, are float64."""
    if tensor.statistic is not None and tensor.statistic.name == "scores":
        return tensor.statistic.dtype == "F64"
    return tensor.dtype == "F64"
