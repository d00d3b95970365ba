"""Writes for people when something is expected to happen."""

from __future__ import annotations

from .quantities import duration_text


def in_about(seconds: float) -> str:
    """Say when something is expected to happen: `soon`, `in about 12 s`, `in about 5 min`, `in about 3 h 12 min`."""
    if seconds < 0.5:
        return "soon"
    # Whole seconds below 100 s, whole minutes above.
    rounded = max(1, round(seconds)) if seconds < 99.5 else 60 * round(seconds / 60)
    return f"in about {duration_text(rounded)}"
