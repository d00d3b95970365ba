"""Bounds of a key's quotas and weight; imports nothing, so that commands can show them in their help."""

from __future__ import annotations

MIN_REQUESTS_S, MAX_REQUESTS_S = 0.001, 1e9
"""Bounds of a key's rate of requests: beyond them the broker cannot count it."""
MIN_WEIGHT, MAX_WEIGHT = 0.01, 1000.0
"""Bounds of a key's share of the workers, relative to a key of weight 1."""
