"""Shape and pattern that the result of a submitted tensor must have."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExpectedTensor:
    """Shape and pattern of a result; the pattern is None if the service assigns it, because the job has a budget."""

    shape: tuple[int, ...]
    pattern: str | None
