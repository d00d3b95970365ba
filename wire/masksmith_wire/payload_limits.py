"""Documents from strangers must not cost more than they weigh."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

MOST_MEMBERS = 100


def _few(document: Any) -> Any:
    if isinstance(document, dict) and len(document) > MOST_MEMBERS:
        raise ValueError(f"{len(document)} members are more than any document has")
    return document


# Of a model that forbids other members than its own, each would become an error: a million of them take far more time
# and memory than the document did. In lists `FailFast` does the same.
few_members = model_validator(mode="before")(_few)
