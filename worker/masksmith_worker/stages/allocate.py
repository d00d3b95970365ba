"""Budgets: which pattern each tensor of a job gets, worked out by all its shards together before the first is solved.

Every shard that starts measures what nobody has measured yet, from its own place on, and keeps it in the store: workers
share the passes over the model without waiting for each other, and what a killed one leaves out another one does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel

import masksmith as ms
from masksmith.allocation import Decision, Family, family_of, measure_from
from masksmith.solvers import by_name
from masksmith_state.blobs.store import BlobStore, statistic_name
from masksmith_state.jobs.model import Plan
from masksmith_state.jobs.shards import PlannedTensor, Shard
from masksmith_wire.digests import digest_document

from .score import Scoring


class Shared(BaseModel):
    """How a budget was shared out: each tensor's pattern, and what another way could keep more at most."""

    patterns: dict[str, str]
    gap: float


@dataclass(frozen=True)
class Budgets:
    """Shares a job's budget out.

    Attributes:
        store: Where measures are kept.
        plan: The job.
        shards: Reads all its shards by index.
        check: Called now and then; what it raises stops the work.
    """

    store: BlobStore
    plan: Plan
    shards: Callable[[], Mapping[int, Shard]]
    check: Callable[[], None]

    def share_out(self, index: int) -> Shared:
        """Give every tensor's pattern; `index` is the shard that asks.

        Raises:
            PatternError: If the budget cannot be met.
            ScoresError: If any tensor holds a bad score.
            FileNotFoundError: If an upload is gone.
        """
        name = statistic_name(self._key("shared", [[tensor.name, tensor.inputs] for tensor in self.plan.tensors]))
        try:
            return Shared.model_validate_json(self.store.get(name))
        except FileNotFoundError:
            found = self._work_out(index)
            self.store.put(name, found.model_dump_json().encode())
            return found

    def _work_out(self, index: int) -> Shared:
        options, shards = self.plan.options, self.shards()
        state: Any = None
        budget = ms.Budget.parse(options.budget or "", options.floors)
        shapes = {tensor.name: tuple(tensor.shape) for tensor in self.plan.tensors}
        double = any(_is_double(tensor) for tensor in self.plan.tensors)
        pattern = ms.parse(options.pattern, axis=options.axis, ragged=options.ragged)
        family = family_of(pattern, budget, shapes, double=double)
        while not isinstance(state, Decision):
            for place in _from(index, shards):
                self._measured(family, shards[place], state)
            state = family.decide(self._merged(family, shards, state), state)
        return Shared(patterns={name: str(rule) for name, rule in state.patterns.items()}, gap=state.gap)

    def _merged(self, family: Family, shards: Mapping[int, Shard], state: Any) -> dict[str, Any]:
        parts: dict[int, list[Any]] = {}
        for place in sorted(shards):
            parts.setdefault(shards[place].tensor, []).append(self._measured(family, shards[place], state))
        return {tensor.name: family.merge(parts[number]) for number, tensor in enumerate(self.plan.tensors)}

    def _measured(self, family: Family, shard: Shard, state: Any) -> Any:
        self.check()
        tensor = self.plan.tensors[shard.tensor]
        name = statistic_name(self._key("measure", [tensor.inputs, shard.first, shard.last, repr(state)]))
        try:
            return np.frombuffer(self.store.get(name), "<f8")
        except FileNotFoundError:
            scores = Scoring(self.store, tensor, self.plan.options.scores, self.check).rows(shard.first, shard.last)
            found = measure_from(family, scores, state, tensor.name, shard.first)
            self.store.put(name, found.astype("<f8").tobytes())
            return found

    def _key(self, what: str, inputs: list[Any]) -> str:
        options = self.plan.options.model_dump(include={"pattern", "axis", "ragged", "scores", "budget", "floors"})
        version = by_name("auto").version
        return digest_document({"budget": what, "inputs": inputs, "options": options, "version": [1, version]})


def _from(index: int, shards: Mapping[int, Shard]) -> list[int]:
    order = sorted(shards)
    return [place for place in order if place >= index] + [place for place in order if place < index]


def _is_double(tensor: PlannedTensor) -> bool:
    scores = tensor.statistic
    return (scores if scores is not None and scores.name == "scores" else tensor).dtype == "F64"
