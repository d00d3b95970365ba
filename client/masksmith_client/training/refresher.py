"""The asking side: copies weights, hands them over, and says when answers stay out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from masksmith.patterns import Pattern
from masksmith_client._errors import InputError
from masksmith_client.submission.tensors import SAFETENSORS_DTYPES

from .masked_layer import MaskedLayer
from .methods.method import Method
from .refresh import Refresh
from .refresh_worker.messages import Answer, Question
from .refresh_worker.shared_memory import Memory, Slot
from .refresh_worker.start import start
from .refresh_worker.thread import Asker
from .snapshots import Snapshots
from .world import World

log = logging.getLogger("masksmith_client.training")

ScoresOf = Callable[[str, Tensor], Tensor]


@dataclass
class Pending:
    """A question under way: every process knows of it, though only the first one asked it."""

    step: int
    pattern: Pattern
    asked_s: float
    dropped: bool = False


class Refresher:
    """Asks for masks and takes answers in, one question at a time.

    Attributes:
        pending: The question under way.
        late: Times that masks were due while the ones before were still awaited; those refreshes are left out.
        outages: Times that masks could not be had.
        trouble: Why, while it lasts.
        failing: Layers that got no mask the last time, with the reason.
    """

    def __init__(
        self,
        layers: list[MaskedLayer],
        masks: object,
        refresh: Refresh,
        method: Method,
        hysteresis: float = 0.0,
        scores: ScoresOf | None = None,
    ) -> None:
        self._layers, self._method = layers, method
        self._refresh, self._hysteresis, self._scores = refresh, hysteresis, scores
        self._given = method.gives_scores or scores is not None
        self._world = World(layers[0].weight.device)
        self.memory = Memory(self._slot(layer) for layer in layers)
        self._snapshots = Snapshots(self.memory)
        self._asker: Asker | None = start(masks, self.memory, refresh) if self._world.asks else None
        self.pending: Pending | None = None
        self.late = self.outages = 0
        self.trouble: str | None = None
        self.failing: dict[str, str] = {}

    @property
    def where(self) -> str:
        """Who asks."""
        return "another process of the group" if self._asker is None else self._asker.where

    def ask(self, pattern: Pattern, step: int) -> None:
        """Copy the weights and ask for their masks; returns as soon as they are copied."""
        self.pending = Pending(step, pattern, time.monotonic())
        if self._asker is None:
            return
        for layer in self._layers:
            self._snapshots.take(layer.name, self._values(layer, step), layer.masking.mask)
        self._snapshots.finish()
        question = Question(
            step=step,
            pattern=str(pattern),
            axis=pattern.axis,
            ragged=pattern.ragged,
            layers=[layer.name for layer in self._layers],
            given=self._given,
            hysteresis=self._hysteresis,
            timeout_s=self._refresh.timeout_s,
        )
        self._snapshots.when_done(lambda: self._handed_over(question))

    def poll(self) -> Answer | None:
        """Give the answer if it is there; never waits for one."""
        return None if self.pending is None else self._take(self._poll)

    def wait(self) -> Answer:
        """Wait for the answer."""
        answer = self._take(self._wait)
        assert answer is not None
        return answer

    def drop(self) -> None:
        """Let the answer under way count for nothing."""
        if self.pending is not None:
            self.pending.dropped = True

    def end(self) -> Pending:
        """Give the question whose answer has come."""
        assert self.pending is not None
        pending, self.pending = self.pending, None
        return pending

    def overdue(self) -> None:
        """Say, the first time, that masks are due again while the last ones are still awaited."""
        assert self.pending is not None
        if self.late == 0:
            log.warning(
                "no masks yet for the weights of step %d, and the next are due; training goes on with the last ones",
                self.pending.step,
            )
        self.late += 1

    def close(self) -> None:
        """Stop asking."""
        if self._asker is not None:
            self._asker.close()

    def _handed_over(self, question: Question) -> None:
        assert self._asker is not None
        self._asker.ask(question)

    def _poll(self) -> Answer | None:
        assert self._asker is not None
        return self._asker.poll() if self._snapshots.are_done() else None

    def _wait(self) -> Answer:
        assert self._asker is not None
        self._snapshots.wait()
        return self._asker.wait()

    def _take(self, poll: Callable[[], Answer | None]) -> Answer | None:
        answer = self._world.share(poll, self._layers, self.memory)
        if answer is None:
            return None
        if answer.failure is not None:
            self._say(answer.failure)
        elif self.trouble is not None:
            log.warning("masks are refreshed again")
            self.trouble = None
        self._say_of_layers(answer)
        return answer

    def _say(self, trouble: str) -> None:
        if self.trouble is None:
            self.outages += 1
            log.warning("masks are not being refreshed: %s; training goes on with the last ones", trouble)
        self.trouble = trouble

    def _say_of_layers(self, answer: Answer) -> None:
        failing = {name: found.error for name, found in answer.layers.items() if found.error is not None}
        dense = {layer.name: layer.masking.dense for layer in self._layers}
        for name, error in failing.items():
            if name not in self.failing and not dense[name]:
                log.warning("layer %r keeps its last mask: %s", name, error)
        self.failing = failing

    @torch.no_grad()
    def _values(self, layer: MaskedLayer, step: int) -> Tensor:
        if self._method.gives_scores:
            return self._method.scores(layer, step)
        if self._scores is None:
            return layer.weight.detach()
        scores = self._scores(layer.name, layer.weight.detach())
        if tuple(scores.shape) != layer.shape:
            raise InputError(f"scores of {layer.name!r} have shape {list(scores.shape)}, not {list(layer.shape)}")
        return scores

    def _slot(self, layer: MaskedLayer) -> Slot:
        dtype = SAFETENSORS_DTYPES[str(layer.weight.dtype).removeprefix("torch.")]
        if self._given:
            dtype = "F64" if dtype == "F64" else "F32"
        return Slot(layer.name, dtype, layer.shape)
