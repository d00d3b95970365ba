"""Payload limits of documents: the number of members, so that invalid documents stay cheap to reject."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

MAX_MEMBERS = 100


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
