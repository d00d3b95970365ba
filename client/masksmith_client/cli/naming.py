"""Options for a job's name, labels, priority and timeout, and functions that read labels, label filters and times.

The functions import other modules of the client when they are called, so that the help of a command loads none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated

import typer

from masksmith_wire.priorities import PriorityName

NameOption = Annotated[
    str | None,
    typer.Option(
        "--name", metavar="TEXT", help="Name of the job; default: the file, model or layers, and the pattern."
    ),
]
LabelOption = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label to find the job by; repeatable.")
]
PriorityOption = Annotated[
    PriorityName | None,
    typer.Option(
        "--priority", help="Order among the jobs of the same key; the default depends on the command and the size."
    ),
]
TimeoutOption = Annotated[
    float | None, typer.Option("--timeout", metavar="SECONDS", min=0, help="Timeout of the wait; the job continues.")
]
AGE_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def check_no_job_options(
    name: str | None, labels: Sequence[str] | None, priority: PriorityName | None, timeout_s: float | None = None
) -> None:
    """Check that a command with `--local` has no options for the job of a service.

    Raises:
        InputError: If the command has such an option.
    """
    from masksmith_client._errors import InputError

    options = {"--name": name, "--label": labels or None, "--priority": priority, "--timeout": timeout_s}
    job_options = [option for option, value in options.items() if value is not None]
    if job_options:
        raise InputError(f"{job_options[0]} is for the job of a service, and --local starts none: omit one of the two")


def read_labels(texts: Sequence[str] | None) -> dict[str, str]:
    """Read labels such as `team=vision`; no labels if `texts` is None.

    Raises:
        InputError: If a text is not `KEY=VALUE`, or if a key is given twice.
    """
    from masksmith_client._errors import as_input_errors
    from masksmith_wire.names import parse_labels

    with as_input_errors(ValueError):
        return parse_labels(texts or ())


def read_label_filters(texts: Sequence[str] | None) -> dict[str, str | None]:
    """Read labels that jobs must have: `team=vision`, or `team` with any value, which becomes None in the result.

    Raises:
        InputError: If a text has no key, or two texts have different values for a key.
    """
    from masksmith_client._errors import as_input_errors
    from masksmith_wire.names import parse_label_filters

    with as_input_errors(ValueError):
        return parse_label_filters(texts or ())


def read_time(text: str | None, option: str) -> datetime | None:
    """Read a time: an age such as `2h`, counted back from now, or a date with or without a time of day.

    A date or time is local unless it has an offset from UTC. Returns None if `text` is None.

    Raises:
        InputError: If the text is neither, or an age is too long; the message names `option`.
    """
    from masksmith_client._errors import InputError

    if text is None:
        return None
    count, unit = text[:-1], AGE_UNITS.get(text[-1:])
    try:
        if unit is not None and count.isdecimal():
            return datetime.now().astimezone() - timedelta(**{unit: int(count)})
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        example = "an age such as 30m, 2h or 7d, or a time such as '2026-01-31 12:00'"
        raise InputError(f"{option} {text[:80]!r} is not {example}") from None
