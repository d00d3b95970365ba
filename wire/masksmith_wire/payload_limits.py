"""Checks of documents: few members, so that invalid ones are cheap to reject; numbers and flags must not be texts."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

MAX_MEMBERS = 100


def _check_number(value: Any) -> Any:
    if isinstance(value, (bool, str)):
        raise ValueError("input should be a number, not a text, true or false")
    return value


JSON_NUMBER = BeforeValidator(_check_number)
"""Annotation of a number of a JSON document; without it, pydantic would take `true` for 1, and the text `"5"` for 5.

Every value in the query of a URL is a text, so fields that are read from a query do not have this annotation.
"""


def _check_flag(value: Any) -> Any:
    if isinstance(value, (str, bytes, int, float)) and not isinstance(value, bool):
        raise ValueError("input should be true or false, not a text or a number")
    return value


JSON_FLAG = BeforeValidator(_check_flag)
"""Annotation of a bool of a JSON document; without it, pydantic would take `"no"`, `"off"` and 0 for false, and so on.

As for `JSON_NUMBER`, fields that are read from a query do not have this annotation.
"""


def _check_member_count(document: Any) -> Any:
    if isinstance(document, dict) and len(document) > MAX_MEMBERS:
        raise ValueError(f"{len(document)} members, no document has more than {MAX_MEMBERS}")
    return document


class StrictModel(BaseModel):
    """A document that rejects unknown members, and more than `MAX_MEMBERS` members.

    pydantic reports an error for every unknown member, which for a million members takes far more time and memory than
    the document itself. For the same reason lists are `FailFast`: only the first invalid item is reported.
    """

    model_config = ConfigDict(extra="forbid")

    _check_member_count = model_validator(mode="before")(_check_member_count)
