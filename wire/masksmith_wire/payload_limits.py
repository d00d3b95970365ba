"""Documents from strangers must not cost more than they weigh."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

MOST_MEMBERS = 100


def _few(document: Any) -> Any:
    if isinstance(document, dict) and len(document) > MOST_MEMBERS:
        raise ValueError(f"{len(document)} members are more than any document has")
    return document


class StrictModel(BaseModel):
    """A document that has no members but its own.

    Each other one becomes an error, and a million of them take far more time and memory than the document did: so there
    may be few. In lists `FailFast` does the same.
    """

    model_config = ConfigDict(extra="forbid")

    _few = model_validator(mode="before")(_few)
