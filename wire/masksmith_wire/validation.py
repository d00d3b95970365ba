"""Messages of pydantic's errors, for users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def reason(error: Mapping[str, Any]) -> str:
    """Message of one error of a `ValidationError`, without what pydantic puts before those of our own checks."""
    return str(error["msg"]).removeprefix("Value error, ")
