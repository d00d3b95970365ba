"""Options that name a job, label it and set its priority, and filters of lists by them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated

import typer

from masksmith_client._errors import InputError, as_input_errors
from masksmith_wire.names import parse_labels
from masksmith_wire.priorities import PriorityName

NameOption = Annotated[
    str | None, typer.Option("--name", metavar="TEXT", help="Name of the job; default file or directory, and pattern.")
]
LabelOption = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label to find the job by; repeatable.")
]
PriorityOption = Annotated[
    PriorityName | None,
    typer.Option("--priority", help="Before or after the key's other jobs; default by what and how much it is."),
]
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def read_labels(texts: Sequence[str] | None) -> dict[str, str]:
    """Read labels such as `team=vision`.

    Raises:
        InputError: If one is not `KEY=VALUE`, or a key has two values.
    """
    with as_input_errors(ValueError):
        return parse_labels(texts or ())


def read_label_filters(texts: Sequence[str] | None) -> dict[str, str | None]:
    """Read labels to look for: `team=vision`, or `team` with any value."""
    parts = (text.partition("=") for text in texts or ())
    return {key: value if equals else None for key, equals, value in parts}


def read_time(text: str | None, option: str) -> datetime | None:
    """Read a time: an age such as `2h`, or a date or time such as `2026-01-31 12:00`, local unless it has an offset.

    Raises:
        InputError: If it is neither.
    """
    if text is None:
        return None
    count, unit = text[:-1], UNITS.get(text[-1:])
    try:
        if unit is not None and count.isdecimal():
            return datetime.now().astimezone() - timedelta(**{unit: int(count)})
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        example = "an age such as 30m, 2h or 7d, or a time such as '2026-01-31 12:00'"
        raise InputError(f"{option} {text[:80]!r} is not {example}") from None
