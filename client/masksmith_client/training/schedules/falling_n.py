"""N:M with n falling from m, so that layers lose their entries a few at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace

from masksmith.patterns import NM, Pattern
from masksmith_client._errors import InputError

from .schedule import Schedule, check_span, progress


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
        check_span(self.begin, self.end)

    def check(self, pattern: Pattern) -> None:
        """Refuse patterns without n and m."""
        if not isinstance(pattern, NM):
            raise InputError(f"FallingN needs an n:m pattern, not {pattern}")

    def pattern_at(self, pattern: Pattern, step: int) -> Pattern | None:
        """Give the pattern with the n of this step."""
        assert isinstance(pattern, NM)
        stages = _stages(pattern)
        stage = stages[min(int(progress(self.begin, self.end, step) * len(stages)), len(stages) - 1)]
        return None if step < self.begin else stage


def _stages(pattern: NM) -> list[NM]:
    """Give the patterns on the way; tiles that are no squares allow only some n."""
    if not pattern.transposable:
        return [replace(pattern, n=n) for n in range(pattern.m - 1, pattern.n - 1, -1)] or [pattern]
    assert pattern.m_out is not None
    ways = [(n, divmod(n * pattern.m_out, pattern.m)) for n in range(pattern.m - 1, pattern.n, -1)]
    fitting = [replace(pattern, n=n, n_out=n_out) for n, (n_out, rest) in ways if rest == 0 and n_out > 0]
    return [*fitting, pattern]
