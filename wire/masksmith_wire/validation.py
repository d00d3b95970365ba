"""Turns pydantic's validation errors into messages for users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def reason(error: Mapping[str, Any]) -> str:
    """Message of one error of a `ValidationError`, without pydantic's prefix for a `ValueError` of a validator."""
    return str(error["msg"]).removeprefix("Value error, ")


def located_reason(error: Mapping[str, Any]) -> str:
    """Message of one error after the field's path and value: `batches.1=-4: input should be greater than 0`."""
    text = reason(error)
    if not error["loc"]:
        return text
    return f"{'.'.join(map(str, error['loc']))}={error['input']!r:.200}: {text[:1].lower()}{text[1:]}"
