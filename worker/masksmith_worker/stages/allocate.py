"""Allocate: which pattern a budget gives each tensor, worked out by all shards together before the first is solved.

Every shard that starts measures what is not measured yet, from its own place on, and keeps it in the store: workers
share the passes over the model without waiting for each other, and another one does what a killed one left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel

import masksmith as ms
from masksmith.allocation import Decision, Family, family_of, measure_from
from masksmith.solvers import by_name
from masksmith_state.blobs.store import statistic_name
from masksmith_state.jobs.model import Plan
from masksmith_state.jobs.shards import PlannedTensor, Shard
from masksmith_wire.digests import digest_document

from .load import UploadGoneError
from .score import Scoring
from .work import ShardWork


class BudgetError(Exception):
    """A budget cannot be shared out."""


class Allocation(BaseModel):
    """How a budget was shared out: each tensor's pattern, and what another way could keep more at most."""

    patterns: dict[str, str]
    gap: float


class BudgetAllocator:
    """Shares a job's budget out over its tensors.

    Args:
        work: The shard that needs its tensor's pattern first.
        plan: The job.
        read_shards: Reads all its shards by index.
    """

    def __init__(self, work: ShardWork, plan: Plan, read_shards: Callable[[], Mapping[int, Shard]]) -> None:
        self._store, self._specification, self._check = work.store, work.specification, work.check
        self._tensors, self._read_shards = plan.tensors, read_shards

    def allocate(self, index: int) -> Allocation:
        """Work out every tensor's pattern, unless another shard did; `index` is the shard that measures first.

        Raises:
            BudgetError: If the budget cannot be met, any tensor holds a bad score, or an upload is gone.
        """
        name = statistic_name(self._key("shared", [[tensor.name, tensor.inputs] for tensor in self._tensors]))
        try:
            return Allocation.model_validate_json(self._store.get(name))
        except FileNotFoundError:
            pass
        try:
            allocation = self._allocate(index)
        except (ms.MasksmithError, UploadGoneError) as error:
            raise BudgetError(str(error)) from None
        self._store.put(name, allocation.model_dump_json().encode())
        return allocation

    def _allocate(self, index: int) -> Allocation:
        specification, shards = self._specification, self._read_shards()
        assert specification.budget is not None
        state: Any = None
        shapes = {tensor.name: tuple(tensor.shape) for tensor in self._tensors}
        double = any(_is_double(tensor) for tensor in self._tensors)
        family = family_of(specification.pattern, specification.budget, shapes, double=double)
        while not isinstance(state, Decision):
            for place in _from(index, shards):
                self._measured(family, shards[place], state)
            state = family.decide(self._merged(family, shards, state), state)
        return Allocation(patterns={name: str(rule) for name, rule in state.patterns.items()}, gap=state.gap)

    def _merged(self, family: Family, shards: Mapping[int, Shard], state: Any) -> dict[str, Any]:
        parts: dict[int, list[Any]] = {}
        for place in sorted(shards):
            parts.setdefault(shards[place].tensor, []).append(self._measured(family, shards[place], state))
        return {tensor.name: family.merge(parts[number]) for number, tensor in enumerate(self._tensors)}

    def _measured(self, family: Family, shard: Shard, state: Any) -> Any:
        self._check()
        tensor = self._tensors[shard.tensor]
        name = statistic_name(self._key("measure", [tensor.inputs, shard.first, shard.last, repr(state)]))
        try:
            return np.frombuffer(self._store.get(name), "<f8")
        except FileNotFoundError:
            scores = Scoring(self._store, tensor, self._specification.scores, self._check).rows(shard.first, shard.last)
            measured = measure_from(family, scores, state, tensor.name, shard.first)
            self._store.put(name, measured.astype("<f8").tobytes())
            return measured

    def _key(self, what: str, inputs: list[Any]) -> str:
        options = self._specification.options.model_dump(
            include={"pattern", "axis", "ragged", "scores", "budget", "floors"}
        )
        version = by_name("auto").version
        return digest_document({"budget": what, "inputs": inputs, "options": options, "version": [1, version]})


def _from(index: int, shards: Mapping[int, Shard]) -> list[int]:
    order = sorted(shards)
    return [place for place in order if place >= index] + [place for place in order if place < index]


def _is_double(tensor: PlannedTensor) -> bool:
    scores = tensor.statistic
    return (scores if scores is not None and scores.name == "scores" else tensor).dtype == "F64"
