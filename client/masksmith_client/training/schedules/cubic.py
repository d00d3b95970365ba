"""A density that falls as a cubic: fast while there is much to spare, slowly at the end."""

from __future__ import annotations

from dataclasses import dataclass, replace

from masksmith.patterns import Block, Channels, Pattern, Unstructured
from masksmith_client._errors import InputError

from .schedule import Schedule, check_span, progress


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
        check_span(self.begin, self.end)
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
        left = (1 - progress(self.begin, self.end, step)) ** 3
        density = pattern.density + (self.start - pattern.density) * left
        # A percentage of six digits is plenty, and short to write.
        return pattern if left == 0 else replace(pattern, density=round(density, 6))
