"""Schedules of the pattern during training: dense phases, falling density, falling n."""

from __future__ import annotations

from dataclasses import dataclass, replace

from masksmith.patterns import NM, Block, Channels, Pattern, Unstructured
from masksmith_client._errors import InputError

from .methods.numbers import check_integer, check_share


class Schedule:
    """Base class of schedules; by itself, the schedule that has the final pattern from the first step on."""

    def check(self, pattern: Pattern) -> None:
        """Check that the schedule supports the final pattern.

        Raises:
            InputError: If it does not.
        """

    def pattern_at(self, pattern: Pattern, step: int) -> Pattern | None:
        """Return the pattern of masks requested after this many optimizer steps; None means dense layers."""
        return pattern


@dataclass(frozen=True)
class DensePhases(Schedule):
    """Layers are dense during the first `warm_up` steps, and again from step `tail_from` on (dense tail).

    After a warm-up, magnitudes are more informative scores; a dense tail fine-tunes the model after cheap sparse
    training (Hu et al., ICML 2024). Weights baked in a dense tail are dense.

    Attributes:
        warm_up: Dense steps at the beginning, at least 0.
        tail_from: Step from which on layers are dense again; None: never.
        between: Schedule of the steps between the dense phases; default the final pattern.

    Raises:
        InputError: If a step is not a whole number of at least 0, the steps are not in order, or `between` is not a
            schedule.
    """

    warm_up: int = 0
    tail_from: int | None = None
    between: Schedule = Schedule()  # noqa: RUF009 - it has no state

    def __post_init__(self) -> None:
        check_integer("warm_up", self.warm_up, 0)
        if self.tail_from is not None:
            check_integer("tail_from", self.tail_from, 0)
            if self.tail_from <= self.warm_up:
                raise InputError(f"warm_up={self.warm_up} must be at least 0 and less than tail_from={self.tail_from}")
        if not isinstance(self.between, Schedule):
            raise InputError(f"between={self.between!r} is not a schedule, such as FallingN(begin=10, end=60)")

    def check(self, pattern: Pattern) -> None:
        """Check that the schedule `between` supports the final pattern."""
        self.between.check(pattern)

    def pattern_at(self, pattern: Pattern, step: int) -> Pattern | None:
        """Return None in the dense phases, else the pattern of the schedule `between`."""
        is_dense = step < self.warm_up or (self.tail_from is not None and step >= self.tail_from)
        return None if is_dense else self.between.pattern_at(pattern, step)


@dataclass(frozen=True)
class CubicDensity(Schedule):
    """Density `final + (start - final) * (1 - progress)^3` between two steps (Zhu and Gupta, 2017).

    `progress` rises from 0 at step `begin` to 1 at step `end`; `final` is the density of the final pattern, which must
    be unstructured (such as `10%`), of blocks or of channels.

    Attributes:
        begin, end: Steps at which the density starts to fall from `start`, and at which it reaches the final density.
        start: Density up to step `begin`, in (0, 1].

    Raises:
        InputError: If a step is not a whole number of at least 0, the steps are not in order, or `start` is not in
            (0, 1].
    """

    begin: int
    end: int
    start: float = 1.0

    def __post_init__(self) -> None:
        _check_span(self.begin, self.end)
        check_share("start", self.start)

    def check(self, pattern: Pattern) -> None:
        """Check that the pattern is unstructured, of blocks or of channels, and that its density is at most `start`."""
        if not isinstance(pattern, Unstructured | Block | Channels):
            needed = "a pattern of blocks, of channels, or of single entries such as '10%'"
            raise InputError(f"CubicDensity needs {needed}, not {pattern}; use FallingN for n:m")
        if pattern.density > self.start:
            raise InputError(f"start={self.start} is less than the density of {pattern}")

    def pattern_at(self, pattern: Pattern, step: int) -> Pattern | None:
        """Return the pattern with the density of this step."""
        assert isinstance(pattern, Unstructured | Block | Channels)
        excess_share = (1 - _progress(self.begin, self.end, step)) ** 3
        density = pattern.density + (self.start - pattern.density) * excess_share
        # The density is rounded, so that the pattern's text is short, but not below the final one.
        return pattern if excess_share == 0 else replace(pattern, density=max(round(density, 6), pattern.density))


@dataclass(frozen=True)
class FallingN(Schedule):
    """`n` falls from `m` (dense) to the `n` of the final pattern, in equal intervals between two steps.

    Attributes:
        begin: Step at which layers stop being dense: `n` is less than `m` from this step on.
        end: Step at which the last of the intervals ends. Each interval has one `n`, and the last one the final `n`, so
            masks have the final `n` before this step.

    Raises:
        InputError: If a step is not a whole number of at least 0, or the steps are not in order.
    """

    begin: int
    end: int

    def __post_init__(self) -> None:
        _check_span(self.begin, self.end)

    def check(self, pattern: Pattern) -> None:
        """Check that the pattern is an n:m pattern."""
        if not isinstance(pattern, NM):
            raise InputError(f"FallingN needs an n:m pattern, not {pattern}")

    def pattern_at(self, pattern: Pattern, step: int) -> Pattern | None:
        """Return the pattern with the n of this step; None before `begin`."""
        assert isinstance(pattern, NM)
        stages = _stages(pattern)
        stage = stages[min(int(_progress(self.begin, self.end, step) * len(stages)), len(stages) - 1)]
        return None if step < self.begin else stage


def _stages(pattern: NM) -> list[NM]:
    """Return the patterns of the intervals, from the largest n below m down to the final n.

    Transposable tiles that are not square allow only some n.
    """
    if not pattern.transposable:
        return [replace(pattern, n=n) for n in range(pattern.m - 1, pattern.n - 1, -1)] or [pattern]
    assert pattern.m_out is not None
    stages = []
    for n in range(pattern.m - 1, pattern.n, -1):
        # A tile keeps n entries of each of its m_out rows, and n_out entries of each of its m columns.
        n_out, remainder = divmod(n * pattern.m_out, pattern.m)
        if remainder == 0:
            stages.append(replace(pattern, n=n, n_out=n_out))
    return [*stages, pattern]


def _check_span(begin: int, end: int) -> None:
    """Raise `InputError` unless both steps are whole numbers of at least 0, and `begin` is less than `end`."""
    check_integer("begin", begin, 0)
    check_integer("end", end, 0)
    if begin >= end:
        raise InputError(f"begin={begin} must be at least 0 and less than end={end}")


def _progress(begin: int, end: int, step: int) -> float:
    """Return the share of the steps from `begin` to `end` that are before `step`, in [0, 1]."""
    return min(max((step - begin) / (end - begin), 0.0), 1.0)
