"""Dense layers at the beginning, and again at the end."""

from __future__ import annotations

from dataclasses import dataclass

from masksmith.patterns import Pattern
from masksmith_client._errors import InputError

from .schedule import Schedule


@dataclass(frozen=True)
class DensePhases(Schedule):
    """Layers are dense for the first steps, and from some step on.

    A warm-up lets magnitudes mean something before masks go by them; a dense tail fine-tunes what the sparse phase made
    cheap to train (Hu et al., ICML 2024). What is baked in a dense tail is dense.

    Attributes:
        warm_up: Steps at the beginning, at least 0.
        tail_from: Step from which on layers are dense again; None: never.
        between: Schedule of the steps between; the pattern itself unless given.

    Raises:
        InputError: If the steps are not in order.
    """

    warm_up: int = 0
    tail_from: int | None = None
    between: Schedule = Schedule()  # noqa: RUF009 - it has no state

    def __post_init__(self) -> None:
        if self.warm_up < 0 or (self.tail_from is not None and self.tail_from <= self.warm_up):
            raise InputError(f"warm_up={self.warm_up} and tail_from={self.tail_from} must be steps in this order")

    def check(self, pattern: Pattern) -> None:
        """Refuse what the schedule between refuses."""
        self.between.check(pattern)

    def pattern_at(self, pattern: Pattern, step: int) -> Pattern | None:
        """Give none in the dense phases."""
        dense = step < self.warm_up or (self.tail_from is not None and step >= self.tail_from)
        return None if dense else self.between.pattern_at(pattern, step)
