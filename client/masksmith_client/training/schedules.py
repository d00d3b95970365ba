"""Schedules: which pattern counts at which step, or none while layers are dense."""

from __future__ import annotations

from dataclasses import dataclass, replace

from masksmith.patterns import NM, Block, Channels, Pattern, Unstructured
from masksmith_client._errors import InputError


class Schedule:
    """Base of all schedules: the final pattern, from the beginning."""

    def check(self, pattern: Pattern) -> None:
        """Refuse final patterns that the schedule cannot lead to.

        Raises:
            InputError: If it cannot.
        """

    def pattern_at(self, pattern: Pattern, step: int) -> Pattern | None:
        """Give the pattern of masks requested after this many optimizer steps; None means dense layers."""
        return pattern


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


@dataclass(frozen=True)
class CubicDensity(Schedule):
    """Density `final + (start - final) * (1 - progress)^3` between two steps (Zhu and Gupta, 2017).

    For patterns with a density: `10%`, blocks and channels. Their own density is the final one.

    Attributes:
        begin, end: Steps at which the density leaves `start` and reaches the pattern's own.
        start: Density at the beginning, in (0, 1].

    Raises:
        InputError: If the steps are not in order, or `start` is no share.
    """

    begin: int
    end: int
    start: float = 1.0

    def __post_init__(self) -> None:
        _check_span(self.begin, self.end)
        if not 0 < self.start <= 1:
            raise InputError(f"start={self.start} must be a density in (0, 1]")

    def check(self, pattern: Pattern) -> None:
        """Refuse patterns without a density of their own, and those that are denser than the start."""
        if not isinstance(pattern, Unstructured | Block | Channels):
            raise InputError(f"CubicDensity needs a pattern with a density, not {pattern}; n:m falls with FallingN")
        if pattern.density > self.start:
            raise InputError(f"start={self.start} is less than the density of {pattern}")

    def pattern_at(self, pattern: Pattern, step: int) -> Pattern | None:
        """Give the pattern with the density of this step."""
        assert isinstance(pattern, Unstructured | Block | Channels)
        left = (1 - _progress(self.begin, self.end, step)) ** 3
        density = pattern.density + (self.start - pattern.density) * left
        # A percentage of six digits is plenty, and short to write.
        return pattern if left == 0 else replace(pattern, density=round(density, 6))


@dataclass(frozen=True)
class FallingN(Schedule):
    """`n` goes from `m` (dense) to the pattern's own in equal intervals between two steps.

    Attributes:
        begin, end: Steps at which layers stop being dense, and at which the pattern's own `n` is reached.

    Raises:
        InputError: If the steps are not in order.
    """

    begin: int
    end: int

    def __post_init__(self) -> None:
        _check_span(self.begin, self.end)

    def check(self, pattern: Pattern) -> None:
        """Refuse patterns without n and m."""
        if not isinstance(pattern, NM):
            raise InputError(f"FallingN needs an n:m pattern, not {pattern}")

    def pattern_at(self, pattern: Pattern, step: int) -> Pattern | None:
        """Give the pattern with the n of this step."""
        assert isinstance(pattern, NM)
        stages = _stages(pattern)
        stage = stages[min(int(_progress(self.begin, self.end, step) * len(stages)), len(stages) - 1)]
        return None if step < self.begin else stage


def _stages(pattern: NM) -> list[NM]:
    """Give the patterns on the way; tiles that are no squares allow only some n."""
    if not pattern.transposable:
        return [replace(pattern, n=n) for n in range(pattern.m - 1, pattern.n - 1, -1)] or [pattern]
    assert pattern.m_out is not None
    ways = [(n, divmod(n * pattern.m_out, pattern.m)) for n in range(pattern.m - 1, pattern.n, -1)]
    fitting = [replace(pattern, n=n, n_out=n_out) for n, (n_out, rest) in ways if rest == 0 and n_out > 0]
    return [*fitting, pattern]


def _check_span(begin: int, end: int) -> None:
    """Raise `InputError` unless the steps are in order."""
    if not 0 <= begin < end:
        raise InputError(f"begin={begin} and end={end} must be steps, the one before the other")


def _progress(begin: int, end: int, step: int) -> float:
    """Give how much of the span is over, in [0, 1]."""
    return min(max((step - begin) / (end - begin), 0.0), 1.0)
