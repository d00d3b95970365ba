"""Answers questions: leaves out what has not changed, adds hysteresis, has the rest solved, counts the flips."""

from __future__ import annotations

import logging

import numpy as np
from blake3 import blake3

from masksmith.patterns import parse
from masksmith_client._errors import ClientError

from .messages import Answer, Found, Question
from .shared_memory import Bools, Memory
from .sources import Asked, Source

log = logging.getLogger("masksmith_client.training")


class Answerer:
    """Answers questions about the layers of one memory, one at a time."""

    def __init__(self, source: Source, memory: Memory) -> None:
        self._source, self._memory = source, memory
        self._answered: dict[str, str] = {}

    def answer(self, question: Question) -> Answer:
        """Find the masks that are asked for; they lie in the memory afterwards."""
        keys = {name: self._key(name, question) for name in question.layers}
        wanted = [name for name in question.layers if not self._is_answered(name, keys[name])]
        layers = {name: Found(unchanged=True) for name in question.layers if name not in wanted}
        try:
            if wanted:
                layers |= self._solve(wanted, question)
        except ClientError as error:
            return Answer(step=question.step, failure=str(error))
        except Exception as error:
            log.exception("masks could not be found")
            return Answer(step=question.step, failure=f"{type(error).__name__}: {error}")
        self._answered |= {name: keys[name] for name in wanted if layers[name].error is None}
        return Answer(step=question.step, layers=layers)

    def _solve(self, wanted: list[str], question: Question) -> dict[str, Found]:
        pattern = parse(question.pattern, axis=question.axis, ragged=question.ragged)  # type: ignore[arg-type]
        asked = [self._asked(name, question) for name in wanted]
        flips: dict[str, tuple[int, int]] = {}

        def take(name: str, mask: Bools) -> None:
            previous = self._memory.previous(name)
            flips[name] = int(np.count_nonzero(mask & ~previous)), int(np.count_nonzero(previous & ~mask))
            # From here on the memory no longer holds the mask that was answered before.
            self._answered.pop(name, None)
            self._memory.found(name)[...] = mask

        found = self._source.solve(asked, pattern, question.timeout_s, take)
        return {name: self._told(name, found, flips) for name in wanted}

    def _told(self, name: str, found: object, flips: dict[str, tuple[int, int]]) -> Found:
        told: Found | None = found.get(name)  # type: ignore[attr-defined]
        if name not in flips:
            return told if told is not None and told.error is not None else Found(error="there is no mask for it")
        added, dropped = flips[name]
        return (told or Found()).model_copy(update={"added": added, "dropped": dropped})

    def _asked(self, name: str, question: Question) -> Asked:
        asked = Asked(self._memory.slots[name], self._memory.values(name), question.given)
        if question.hysteresis == 0.0:
            return asked
        scores = asked.scores()
        wide = np.dtype(np.float64 if scores.dtype == np.float64 else np.float32)
        bonus = self._memory.previous(name).astype(wide) * wide.type(question.hysteresis)
        return asked.with_scores(scores.astype(wide) + bonus)

    def _key(self, name: str, question: Question) -> str:
        told = question.model_copy(update={"step": 0, "layers": []}).model_dump_json()
        return blake3(told.encode()).update(self._memory.values(name).data).hexdigest()

    def _is_answered(self, name: str, key: str) -> bool:
        # A mask that was loaded since is not the one that was answered.
        same = self._answered.get(name) == key
        return same and np.array_equal(self._memory.found(name), self._memory.previous(name))
