"""Arguments of the sparsifier that may be names: pattern, method, schedule."""

from __future__ import annotations

from masksmith.patterns import Pattern
from masksmith_client._errors import InputError
from masksmith_client.submission.prepare import parse_pattern

from .methods.method import Fixed, Method
from .methods.straight_through import SRSTE, MaskedDecay, StraightThrough
from .methods.trainable_thresholds import TrainableThresholds
from .schedules import Schedule

METHODS: dict[str, type[Method]] = {
    "fixed": Fixed,
    "straight-through": StraightThrough,
    "sr-ste": SRSTE,
    "masked-decay": MaskedDecay,
    "trainable-thresholds": TrainableThresholds,
}
"""Methods by name, with their default numbers."""


def as_pattern(pattern: str | Pattern) -> Pattern:
    """Parse a pattern.

    Raises:
        InputError: If it is neither a pattern nor the string of one.
    """
    if isinstance(pattern, Pattern):
        return pattern
    if not isinstance(pattern, str):
        raise InputError(f"pattern={pattern!r} is neither a pattern nor a string such as 'transposable 8:16'")
    return parse_pattern(pattern)


def as_method(method: Method | str | None) -> Method:
    """Return a method, by name if it is a string; the default is `SRSTE()`.

    Raises:
        InputError: If it is no method, or no name of one.
    """
    if isinstance(method, Method):
        return method
    name = "sr-ste" if method is None else method
    if not isinstance(name, str) or name not in METHODS:
        raise InputError(f"method={method!r} is neither a Method nor one of {', '.join(METHODS)}")
    return METHODS[name]()


def as_schedule(schedule: Schedule | None) -> Schedule:
    """Return a schedule; the default is the pattern from the first step on.

    Raises:
        InputError: If it is no schedule.
    """
    if schedule is None:
        return Schedule()
    if not isinstance(schedule, Schedule):
        raise InputError(f"schedule={schedule!r} is not a Schedule, such as DensePhases(warm_up=100)")
    return schedule
