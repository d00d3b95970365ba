"""What a schedule decides: the pattern of a step, or none while layers are dense."""

from __future__ import annotations

from masksmith.patterns import Pattern
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


def check_span(begin: int, end: int) -> None:
    """Raise `InputError` unless the steps are in order."""
    if not 0 <= begin < end:
        raise InputError(f"begin={begin} and end={end} must be steps, the one before the other")


def progress(begin: int, end: int, step: int) -> float:
    """Give how much of the span is over, in [0, 1]."""
    return min(max((step - begin) / (end - begin), 0.0), 1.0)
