"""Messages of pydantic's errors, for users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def reason(error: Mapping[str, Any]) -> str:
    """Message of one error of a `ValidationError`, without the prefix that pydantic adds to messages of validators."""
    return str(error["msg"]).removeprefix("Value error, ")


def named_reason(error: Mapping[str, Any]) -> str:
    """Message of one error, with the member and its value: `batches.0=0: input should be greater than 0`."""
    text = reason(error)
    if not error["loc"]:
        return text
    return f"{'.'.join(map(str, error['loc']))}={error['input']!r:.200}: {text[:1].lower()}{text[1:]}"
