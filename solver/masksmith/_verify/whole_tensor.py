"""Verifies masks of patterns whose budgets belong to the whole tensor, by counting, independently of every solver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith._panels import Bools
from masksmith._tensors import MatrixReader
from masksmith.patterns import VNM, Block, Channels, Pattern, PatternError, Unstructured

from .tiles import broken_tiles

ROWS_AT_ONCE = 256

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Finding:
    """The violations of a pattern by a mask.

    Attributes:
        message: Description of the first violation; empty if there is none.
        tile: Position of the first violation in `pattern.grid`.
        broken: Number of violating pieces (blocks, channels, panels) or budgets.
        tiles: Number of pieces.
    """

    message: str = ""
    tile: tuple[int, int] | None = None
    broken: int = 0
    tiles: int = 1


def examine(mask: MatrixReader, pattern: Pattern, *, at_most: bool = False) -> Finding:
    """Check a mask against a pattern without tiles; `at_most` allows it to keep less than the pattern does.

    Raises:
        PatternError: If the pattern cannot hold for this shape, or is of an unknown type.
    """
    checks: dict[type, Callable[[MatrixReader, Any, bool], Finding]] = {
        Unstructured: _unstructured,
        Channels: _channels,
        Block: _block,
        VNM: _vnm,
    }
    if type(pattern) not in checks:
        raise PatternError(f"no verifier is known for {pattern}")
    return checks[type(pattern)](mask, pattern, at_most)


def _strips(mask: MatrixReader, step: int) -> Iterator[tuple[int, Bools]]:
    for first in range(0, mask.shape[0], step):
        yield first, mask.rows(first, min(first + step, mask.shape[0])) != 0


def _unstructured(mask: MatrixReader, pattern: Unstructured, at_most: bool) -> Finding:
    expected = pattern.kept(mask.shape)
    actual = sum(int(np.count_nonzero(rows)) for _, rows in _strips(mask, ROWS_AT_ONCE))
    if actual == expected or (at_most and actual < expected):
        return Finding()
    return Finding(f"{actual} entries are kept instead of {expected}", (0, 0), 1)


def _channels(mask: MatrixReader, pattern: Channels, at_most: bool) -> Finding:
    expected, size = pattern.kept(mask.shape), int(np.prod(mask.shape))
    channels = mask.shape[0 if pattern.axis == "out" else 1]
    counts = np.zeros(channels, np.int64)
    for first, rows in _strips(mask, ROWS_AT_ONCE):
        if pattern.axis == "out":
            counts[first : first + len(rows)] = rows.sum(1)
        else:
            counts += rows.reshape(-1, channels).sum(0)
    mixed = np.flatnonzero((counts > 0) & (counts < size // channels))
    if mixed.size and not at_most:
        first = int(mixed[0])
        where = (first, 0) if pattern.axis == "out" else (0, first)
        return Finding(f"{pattern.axis}put channel {first} is kept in part", where, len(mixed), channels)
    actual = int((counts > 0).sum())
    if actual > expected or (actual < expected and not at_most):
        return Finding(f"{actual} channels are kept instead of {expected}", (0, 0), 1, channels)
    return Finding(tiles=channels)


def _block(mask: MatrixReader, pattern: Block, at_most: bool) -> Finding:
    grid = pattern.grid(mask.shape)
    down, across = pattern.blocks(grid)
    lefts = np.arange(0, grid.cols, pattern.cols)
    kept = np.zeros((grid.down, grid.across), np.bool_)
    mixed = np.zeros((grid.down, grid.across), np.bool_)
    for first, rows in _strips(mask, pattern.rows):
        counts = np.add.reduceat(rows.sum(0), lefts)
        size = len(rows) * np.diff(lefts, append=grid.cols)
        here = first // pattern.rows
        kept[here] = counts > 0
        if pattern.nested is not None:
            mixed[here] = (counts > 0) & _breaks_inside(rows, pattern, at_most)
        elif not at_most:
            mixed[here] = (counts > 0) & (counts < size)
        if pattern.ragged == "dense" and at_most:
            mixed[here, across if here < down else 0 :] = False
        elif pattern.ragged == "dense":
            mixed[here, across if here < down else 0 :] = (counts < size)[across if here < down else 0 :]
    if mixed.any():
        first, left = (int(places[0]) for places in np.nonzero(mixed))
        message = f"{int(mixed.sum())} of {grid.tiles} blocks are kept in part, the first at block [{first}, {left}]"
        return Finding(message, (first, left), int(mixed.sum()), grid.tiles)
    return _budgets(kept[:down, :across], pattern, mask, at_most)


def _vnm(mask: MatrixReader, pattern: VNM, at_most: bool) -> Finding:
    grid = pattern.grid(mask.shape)
    broken = []
    for number, (_, rows) in enumerate(_strips(mask, pattern.v)):
        fits = [_fits_vnm(cut, pattern, at_most) for cut in _cuts(rows, pattern.m)]
        broken += [(number, int(panel)) for panel in np.flatnonzero(~np.concatenate(fits))]
    if not broken:
        return Finding(tiles=grid.tiles)
    message = f"{len(broken)} of {grid.tiles} panels break it, the first at panel {list(broken[0])}"
    return Finding(message, broken[0], len(broken), grid.tiles)


def _cuts(rows: Bools, m: int) -> Iterator[Bools]:
    """Split a row of panels into the whole ones and the cropped last one: `[rows, panels, columns]` each."""
    whole = rows.shape[1] // m * m
    if whole:
        yield rows[:, :whole].reshape(len(rows), -1, m)
    if whole < rows.shape[1]:
        yield rows[:, None, whole:]


def _fits_vnm(cut: Bools, pattern: VNM, at_most: bool) -> Bools:
    """Return whether some mask of the padding completes panels; its columns count among the four shared columns."""
    counts = cut.sum(2)
    if pattern.ragged == "dense" and (cut.shape[0], cut.shape[2]) != (pattern.v, pattern.m):
        return np.asarray(cut.all(axis=(0, 2)) | at_most)
    if at_most:
        return np.asarray((counts.max(0) <= pattern.n) & (cut.any(axis=0).sum(1) <= pattern.columns))
    outside = pattern.n - counts.min(0)
    shared = cut.any(axis=0).sum(1) + outside
    fits = (counts.max(0) <= pattern.n) & (outside <= pattern.m - cut.shape[2]) & (shared <= pattern.columns)
    return np.asarray(fits)


def _breaks_inside(rows: Bools, pattern: Block, at_most: bool) -> Bools:
    """Return, for each block of a block row, whether a tile in it violates the nested pattern."""
    assert pattern.nested is not None
    tile = pattern.nested.tile
    tops = range(0, len(rows), tile.rows)
    flags = [broken_tiles(rows[top : top + tile.rows], pattern.nested, at_most=at_most)[0] for top in tops]
    broken = np.logical_or.reduce(flags, axis=0)
    return np.asarray(np.logical_or.reduceat(broken, np.arange(0, len(broken), pattern.cols // tile.cols)))


def _budgets(kept: Bools, pattern: Block, mask: MatrixReader, at_most: bool) -> Finding:
    grid = pattern.grid(mask.shape)
    by_row, by_col, total = pattern.budgets(grid)
    for counts, expected, name in ((kept.sum(1), by_row, "row"), (kept.sum(0), by_col, "column")):
        limits = counts if expected is None else np.asarray(expected)
        wrong = np.flatnonzero(counts > limits if at_most else counts != limits)
        if wrong.size and expected is not None:
            first = int(wrong[0])
            message = f"block {name} {first} keeps {int(counts[first])} blocks instead of {expected[first]}"
            return Finding(message, (first, 0) if name == "row" else (0, first), len(wrong), grid.tiles)
    actual = int(kept.sum())
    if actual > total or (actual < total and not at_most):
        return Finding(f"{actual} blocks are kept instead of {total}", (0, 0), 1, grid.tiles)
    return Finding(tiles=grid.tiles)
