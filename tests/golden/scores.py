"""Scores that are the same everywhere: raw integers of PCG64 and exact arithmetic, no distribution of numpy's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

KINDS = ("normal32", "normal64", "ties", "zeros", "huge32", "huge64")
MASK_24 = np.uint64(2**24 - 1)


def raw(seed: int, count: int) -> Any:
    """Return `count` integers of 64 random bits."""
    return np.random.default_rng(seed).bit_generator.random_raw(count)


def normal(seed: int, shape: tuple[int, ...]) -> Any:
    """Return float64 that are nearly normal: twelve 16-bit integers summed, and 24 bits below them."""
    count = math.prod(shape)
    words = raw(seed, 4 * count).reshape(4, count)
    pieces = [(words[word] >> np.uint64(shift)) & np.uint64(0xFFFF) for word in range(3) for shift in (0, 16, 32, 48)]
    whole = np.sum(pieces, axis=0, dtype=np.int64) - 6 * 0xFFFF
    fine = (words[3] & MASK_24).astype(np.int64)
    return ((whole * 2**24 + fine).astype(np.float64) / 2.0**40).reshape(shape)


def scores(kind: str, shape: tuple[int, ...], seed: int = 1) -> Any:
    """Return non-negative scores of one of `KINDS`."""
    if kind == "zeros":
        return np.zeros(shape, np.float32)
    if kind == "ties":
        return (raw(seed, math.prod(shape)) % np.uint64(5)).astype(np.float32).reshape(shape)
    name, dtype = kind[:-2], np.float32 if kind.endswith("32") else np.float64
    values = np.abs(normal(seed, shape))
    if name == "huge":
        exponents = (raw(seed + 1, math.prod(shape)) % np.uint64(200)).astype(np.int32).reshape(shape) - 100
        values = np.ldexp(values, exponents)
    return values.astype(dtype)


def flags(seed: int, shape: tuple[int, ...], one_in: int) -> Any:
    """Return a bool mask in which one of so many entries is set."""
    return (raw(seed, math.prod(shape)) % np.uint64(one_in) == 0).reshape(shape)
