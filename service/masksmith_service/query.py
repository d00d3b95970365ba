"""Refuses query parameters that are given several times although they take one value."""

from __future__ import annotations

from collections import Counter
from typing import get_origin

from fastapi import Request
from pydantic import BaseModel

from masksmith_wire.errors import Code

from .errors import RequestError
from .jobs.listing import JobQuery
from .jobs.options import FileOptions, ModelOptions


def _list_fields(model: type[BaseModel]) -> set[str]:
    return {name for name, field in model.model_fields.items() if get_origin(field.annotation) is list}


REPEATABLE = frozenset(_list_fields(FileOptions) | _list_fields(ModelOptions) | _list_fields(JobQuery))
"""Parameters that may have several values."""


async def require_single_values(request: Request) -> None:
    """Check that only `REPEATABLE` parameters are repeated: of others the framework would silently use the last value.

    Raises:
        RequestError: 422, if another parameter is repeated.
    """
    for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
        if count > 1 and name not in REPEATABLE:
            detail = f"query parameter {name[:64]!r} is given {count} times; give it once"
            raise RequestError(Code.INVALID_DOCUMENT, detail)
