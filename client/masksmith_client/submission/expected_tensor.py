"""What the result of a submitted tensor must be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExpectedTensor:
    """What a result of a tensor must be; the pattern is None where the service chooses it."""

    shape: tuple[int, ...]
    pattern: str | None
