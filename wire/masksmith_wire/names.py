"""Names, labels and priorities of jobs. Names and labels are limited in length, and consist of printable characters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from .payload_limits import StrictModel
from .priorities import Priority

MAX_NAME_LENGTH = 200
MAX_LABELS = 16
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
LABEL_KEY = r"^[A-Za-z0-9][A-Za-z0-9_./-]{0,62}$"


def _check_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("control characters and other characters that cannot be printed are not allowed")
    return text


def _check_label_count(labels: Any) -> Any:
    # This check runs before the members are checked, so that a document with many labels is cheap to reject.
    if isinstance(labels, dict) and len(labels) > MAX_LABELS:
        raise ValueError(f"{len(labels)} labels, a job has at most {MAX_LABELS}")
    return labels


JobName = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_NAME_LENGTH),
    AfterValidator(_check_printable),
]
LabelKey = Annotated[str, StringConstraints(pattern=LABEL_KEY)]
LabelValue = Annotated[str, StringConstraints(max_length=100), AfterValidator(_check_printable)]
Labels = Annotated[
    dict[LabelKey, LabelValue], BeforeValidator(_check_label_count), Field(examples=[{"team": "vision"}])
]


class JobDescription(StrictModel):
    """Name, labels and priority of a job, which have no effect on its results.

    Jobs can be searched by labels. The priority orders the jobs of one API key; the key may limit the priority.
    """

    name: JobName | None = None
    labels: Labels | None = None
    priority: Priority = Priority.NORMAL


def replace_unprintable(text: str) -> str:
    """Replace every character that cannot be printed, such as a control character."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else REPLACEMENT for character in text)


def default_name(subject: str, pattern: str) -> str:
    """Default name of a job, from its subject, such as a file, and its pattern.

    Each is shortened if it is long, and left out if it is empty; `unnamed` if both are empty.
    """
    # Both texts and the comma between them fit into a name.
    parts = [
        _shorten(text, MAX_NAME_LENGTH // 2 - 2)
        for text in (replace_unprintable(subject), replace_unprintable(pattern))
    ]
    return ", ".join(part for part in parts if part) or "unnamed"


def subject_of(names: Iterable[str]) -> str:
    """Subject of a job for its default name: the name of its only tensor, or the number of its tensors."""
    tensor_names = list(names)
    return tensor_names[0] if len(tensor_names) == 1 else f"{len(tensor_names)} tensors"


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    """Parse labels such as `team=vision`; their bounds are checked by `JobDescription`.

    Raises:
        ValueError: If a text is not `KEY=VALUE`, or if a key occurs twice.
    """
    labels: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key or key in labels:
            reason = "is given twice" if equals and key in labels else "is not KEY=VALUE, such as team=vision"
            raise ValueError(f"label {text[:80]!r} {reason}")
        labels[key] = value
    return labels


def parse_label_filters(texts: Iterable[str]) -> dict[str, str | None]:
    """Parse labels that jobs must have: `team=vision`; a key alone stands for any value, and gets the value None.

    Raises:
        ValueError: If a text has no key, or two texts have different values for a key: no job has both.
    """
    labels: dict[str, str | None] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key:
            raise ValueError(f"label {text[:80]!r} is neither KEY=VALUE nor KEY, such as team=vision or team")
        known_value = labels.get(key)
        if equals and known_value not in (None, value):
            raise ValueError(f"label {text[:80]!r} is given with two values, and no job has both; give one")
        labels[key] = value if equals else known_value
    return labels


def _shorten(text: str, length: int) -> str:
    text = text.strip()
    return text if len(text) <= length else text[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"
