"""Counts: what has happened so far, added up in Redis by the very scripts that make it happen.

One hash holds them all, so that they survive restarts and are the same in every service. A field is a name
and its labels, with `|` between them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

COUNTS = "masksmith:counts"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
GAPS = (0.0, 1e-9, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1)
UPLOAD_BYTES = "upload_bytes"


def field(name: str, *labels: str) -> str:
    """Name a count."""
    return "|".join((name, *(label.replace("|", "_") for label in labels)))


def observed(name: str, value: float, bounds: tuple[float, ...], *labels: str) -> dict[str, float]:
    """Give what an observation adds to a histogram: one to its bucket, by number, and the value to the sum."""
    bucket = bisect_left(bounds, value)
    return {field(name, *labels, str(bucket)): 1, field(name, *labels, "sum"): value}


def of_shard(device: str, outcome: str, took_s: float, gap: float | None) -> dict[str, float]:
    """Give what a shard that is done adds.

    Args:
        device: Where it ran.
        outcome: `solved`, `remembered` (its result was there already) or `failed`.
        took_s: Seconds that it was worked on; observed of solved ones only.
        gap: Its gap, if it was solved and has one.
    """
    added: dict[str, float] = {field("shards", device, outcome): 1}
    if outcome == "solved":
        added |= observed("shard_seconds", took_s, SECONDS, device)
    if outcome == "solved" and gap is not None:
        added |= observed("gap", gap, GAPS)
    return added


def grouped(counts: Mapping[str, str], name: str) -> dict[tuple[str, ...], float]:
    """Pick one name's counts by their labels."""
    parts = ((tuple(key.split("|")), float(value)) for key, value in counts.items())
    return {labels[1:]: value for labels, value in parts if labels[0] == name}
