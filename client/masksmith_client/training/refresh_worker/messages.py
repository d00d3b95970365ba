"""What is asked and what is answered: plain values that travel between processes as JSON."""

from __future__ import annotations

from pydantic import BaseModel


class Question(BaseModel):
    """Masks are wanted for layers whose values lie in the shared memory.

    Attributes:
        step: Optimizer steps after which the values were copied.
        pattern, axis, ragged: The pattern.
        layers: Names of the layers.
        given: Whether the values are scores already, or weights whose magnitude counts.
        hysteresis: Bonus, in score units, for entries of the previous masks.
        timeout_s: Longest wait for the masks.
    """

    step: int
    pattern: str
    axis: str
    ragged: str
    layers: list[str]
    given: bool
    hysteresis: float
    timeout_s: float


class Found(BaseModel):
    """One layer's new mask, which lies in the shared memory; or why there is none.

    Attributes:
        unchanged: Nothing about the layer had changed, so it was not asked for: its mask stays.
        error: Why it has no mask; its last one stays.
        added, dropped: Entries that only the new mask keeps, or only the previous one.
    """

    unchanged: bool = False
    error: str | None = None
    status: str | None = None
    objective: float | None = None
    upper_bound: float | None = None
    gap: float | None = None
    retained: float | None = None
    added: int = 0
    dropped: int = 0


class Answer(BaseModel):
    """The answer to the question of the same `step`; `failure` says why there is no mask at all."""

    step: int
    layers: dict[str, Found] = {}
    failure: str | None = None
