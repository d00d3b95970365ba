"""Counters in Redis: names of their fields, the increments of finished shards, and values by labels.

All counters are fields of one hash, so they survive restarts and are the same in every service. A field's name is that
of the counter and its labels, separated by `|`. The scripts that change job records increment the counters of jobs and
shards within the same atomic step.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

COUNTS = "masksmith:counts"
"""Redis key of the hash."""
# Upper bounds, inclusive, of the histograms' buckets; one more bucket is for larger values.
SECONDS_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
GAP_BOUNDS = (0.0, 1e-9, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1)
UPLOAD_BYTES = "upload_bytes"
"""Name of the counter of the bytes of all received uploads."""


def field_name(name: str, *labels: str) -> str:
    """Name of the field of a counter with these labels."""
    return "|".join((name, *(label.replace("|", "_") for label in labels)))


def histogram_increments(name: str, value: float, bounds: tuple[float, ...], *labels: str) -> dict[str, float]:
    """Increments of a histogram for one value: 1 for the bucket of the value, and the value for the sum.

    In names of fields, the last label is the number of the bucket, or `sum`.
    """
    bucket = bisect_left(bounds, value)
    return {field_name(name, *labels, str(bucket)): 1, field_name(name, *labels, "sum"): value}


def shard_increments(device: str, outcome: str, took_s: float, gap: float | None) -> dict[str, float]:
    """Increments for a finished shard of a tensor.

    Args:
        device: Device the shard ran on.
        outcome: `solved`, `remembered` (the result was in the store already) or `failed`.
        took_s: Seconds spent on the shard; counted only if it was solved.
        gap: The shard's gap; None if it has no finite one. It is counted only if the shard was solved.
    """
    increments: dict[str, float] = {field_name("shards", device, outcome): 1}
    if outcome == "solved":
        increments |= histogram_increments("shard_seconds", took_s, SECONDS_BOUNDS, device)
    if outcome == "solved" and gap is not None:
        increments |= histogram_increments("gap", gap, GAP_BOUNDS)
    return increments


def counts_by_labels(counts: Mapping[str, str], name: str) -> dict[tuple[str, ...], float]:
    """Values of the counters of one name, by labels; fields of the hash whose values are no numbers are left out."""
    fields = ((key.split("|"), _number(text)) for key, text in counts.items())
    return {tuple(labels): value for (counter, *labels), value in fields if counter == name and value is not None}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
