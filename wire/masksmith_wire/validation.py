"""Messages of pydantic's errors, for users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def reason(error: Mapping[str, Any]) -> str:
    """Message of one error of a `ValidationError`, without the prefix that pydantic adds to messages of validators."""
    return str(error["msg"]).removeprefix("Value error, ")
