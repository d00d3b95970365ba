"""Durations in words."""

from __future__ import annotations


def in_about(seconds: float) -> str:
    """Say when something is expected to happen: `soon`, `in about 12 s`, `in about 5 min`, `in about 3.2 h`."""
    if seconds < 0.5:
        return "soon"
    if seconds < 100:
        return f"in about {max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"in about {minutes:.0f} min" if minutes < 100 else f"in about {minutes / 60:.1f} h"
