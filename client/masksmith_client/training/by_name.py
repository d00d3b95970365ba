"""Methods and schedules by name and options, such as `"sr-ste decay=1e-4"` and `"dense-phases warm_up=100"`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TypeVar

from masksmith.patterns import Pattern
from masksmith_client._errors import InputError
from masksmith_client.submission.options import parse_pattern

from .methods.method import Fixed, Method
from .methods.prune_and_grow import PruneAndGrow
from .methods.straight_through import SRSTE, MaskedDecay, StraightThrough
from .methods.trainable_thresholds import TrainableThresholds
from .schedules import CubicDensity, DensePhases, FallingN, Schedule

Base = TypeVar("Base")

METHODS: Mapping[str, type[Method]] = {
    "fixed": Fixed,
    "straight-through": StraightThrough,
    "sr-ste": SRSTE,
    "masked-decay": MaskedDecay,
    "prune-and-grow": PruneAndGrow,
    "trainable-thresholds": TrainableThresholds,
}
SCHEDULES: Mapping[str, type[Schedule]] = {
    "constant": Schedule,
    "dense-phases": DensePhases,
    "cubic-density": CubicDensity,
    "falling-n": FallingN,
}


def as_pattern(pattern: Pattern | str) -> Pattern:
    """Convert a text to a pattern; a pattern is returned unchanged.

    Raises:
        InputError: If the text cannot be parsed, or the argument is neither a text nor a pattern.
    """
    if isinstance(pattern, str):
        return parse_pattern(pattern)
    if not hasattr(pattern, "grid"):  # which every pattern has
        raise InputError(f"pattern={pattern!r} is neither a pattern nor a text such as 'transposable 8:16'")
    return pattern


def as_method(method: Method | str | None) -> Method:
    """Create a method from a text of name and options, or `SRSTE()` for None; a method is returned unchanged.

    Raises:
        InputError: If the name or an option is unknown, an option is missing, set twice or has an invalid value, or the
            argument is neither a text nor a method.
    """
    return SRSTE() if method is None else _as_object("method", method, Method, METHODS)


def as_schedule(schedule: Schedule | str | None) -> Schedule:
    """Create a schedule from a text of name and options, or `Schedule()` for None; a schedule is returned unchanged.

    Raises:
        InputError: If the name or an option is unknown, an option is missing, set twice or has an invalid value, or the
            argument is neither a text nor a schedule.
    """
    return Schedule() if schedule is None else _as_object("schedule", schedule, Schedule, SCHEDULES)


def _as_object(kind: str, value: Base | str, base: type[Base], classes: Mapping[str, type[Base]]) -> Base:
    if isinstance(value, str):
        return _create(kind, value, classes)
    if not isinstance(value, base):
        raise InputError(f"{kind}={value!r} is neither a {base.__name__} nor one of: {', '.join(classes)}")
    return value


def _create(kind: str, text: str, classes: Mapping[str, type[Base]]) -> Base:
    """Create an object from a text such as `"sr-ste decay=1e-4"`; `kind` is the name of the argument, for messages."""
    name, *assignments = text.split() or [""]
    if name not in classes:
        raise InputError(f"{kind}={text!r} is not one of: {', '.join(classes)}")
    # The value of the option `between` is a schedule; in a text, values are numbers.
    option_names = [option for option in inspect.signature(classes[name]).parameters if option != "between"]
    options: dict[str, int | float] = {}
    for assignment in assignments:
        key, _, value = assignment.partition("=")
        if key not in option_names or key in options:
            known = ", ".join(option_names) or "none"
            raise InputError(f"{kind}={text!r}: {key!r} is not an option of {name}, or is set twice; it has: {known}")
        options[key] = _number(f"{kind}={text!r}: {key}", value)
    parameters = inspect.signature(classes[name]).parameters
    missing = [
        each for each in option_names if parameters[each].default is inspect.Parameter.empty and each not in options
    ]
    if missing:
        begin = options.get("begin", 0)
        later = 2 * begin if begin >= 1000 else 1000  # `end` must be later than `begin`.
        example = " ".join([text, *(f"{option}={0 if option == 'begin' else later}" for option in missing)])
        raise InputError(f"{kind}={text!r} needs options: {', '.join(missing)}, such as {example!r}")
    return classes[name](**options)


def _number(where: str, text: str) -> int | float:
    try:
        return int(text) if text.removeprefix("-").isdigit() else float(text)
    except ValueError:
        raise InputError(f"{where}={text!r} is not a number") from None
