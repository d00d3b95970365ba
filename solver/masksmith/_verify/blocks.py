"""Verifies masks of patterns of blocks by counting: block patterns and hybrid ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from masksmith._panels import Bools
from masksmith._tensors import MatrixReader
from masksmith.patterns import NM, Block, Grid, Hybrid

from .findings import Finding, strips
from .tiles import broken_tiles


def block(mask: MatrixReader, pattern: Block, at_most: bool) -> Finding:
    """Check that blocks are kept or dropped as a whole, and that the budgets hold."""
    grid = pattern.grid(mask.shape)
    down, across = pattern.blocks(grid)
    lefts = np.arange(0, grid.cols, pattern.cols)
    kept = np.zeros((grid.down, grid.across), np.bool_)
    mixed = np.zeros((grid.down, grid.across), np.bool_)
    for first, rows in strips(mask, pattern.rows):
        counts = np.add.reduceat(rows.sum(0), lefts)
        size = len(rows) * np.diff(lefts, append=grid.cols)
        here = first // pattern.rows
        kept[here] = counts > 0
        if pattern.nested is not None:
            mixed[here] = (counts > 0) & _breaks_inside(rows, pattern.nested, pattern.cols, at_most)
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


def hybrid(mask: MatrixReader, pattern: Hybrid, at_most: bool) -> Finding:
    """Check that every block is dense or n:m, and the number of dense blocks; a block may be both."""
    grid = pattern.grid(mask.shape)
    down, across = pattern.blocks(grid)
    dense, fits = _dense_or_fitting(mask, pattern, grid, at_most)
    finding = Finding() if at_most else _neither(dense, fits, pattern, (down, across))
    if not finding.message:
        finding = _dense_blocks(
            dense[:down, :across], fits[:down, :across], pattern, at_most, pattern.dense_blocks(grid)
        )
    return replace(finding, tiles=grid.tiles)


def _dense_or_fitting(mask: MatrixReader, pattern: Hybrid, grid: Grid, at_most: bool) -> tuple[Bools, Bools]:
    """Return, for each block of the grid, whether it is dense, and whether it obeys the inner pattern."""
    dense, fits = np.zeros((grid.down, grid.across), np.bool_), np.zeros((grid.down, grid.across), np.bool_)
    lefts = np.arange(0, grid.cols, pattern.cols)
    for first, rows in strips(mask, pattern.rows):
        here = first // pattern.rows
        dense[here] = np.logical_and.reduceat(rows.all(axis=0), lefts)
        fits[here] = ~_breaks_inside(rows, pattern.inner, pattern.cols, at_most)
    return dense, fits


def _neither(dense: Bools, fits: Bools, pattern: Hybrid, blocks: tuple[int, int]) -> Finding:
    """Find blocks that are neither dense nor n:m, and those of a dense edge that are not dense."""
    is_edge = np.ones_like(dense)
    is_edge[: blocks[0], : blocks[1]] = False
    for broken, what in (
        (is_edge & ~dense, "of the edge are not dense"),
        (~is_edge & ~dense & ~fits, f"are neither dense nor {pattern.inner}"),
    ):
        if broken.any():
            first, left = (int(places[0]) for places in np.nonzero(broken))
            message = f"{int(broken.sum())} of {dense.size} blocks {what}, the first at block [{first}, {left}]"
            return Finding(message, (first, left), int(broken.sum()))
    return Finding()


def _dense_blocks(dense: Bools, fits: Bools, pattern: Hybrid, at_most: bool, expected: int) -> Finding:
    """Compare the number of dense blocks with the expected one; those that obey the inner pattern count as either."""
    beyond, actual = np.argwhere(~fits), int(dense.sum())
    if len(beyond) > expected:
        place = (int(beyond[expected][0]), int(beyond[expected][1]))
        message = f"{len(beyond)} blocks keep more than {pattern.inner} instead of {expected}"
        return Finding(f"{message}: block {list(place)} is one too many", place, len(beyond) - expected)
    if actual < expected and not at_most:
        return Finding(f"{actual} blocks are dense instead of {expected}", (0, 0), 1)
    return Finding()


def _breaks_inside(rows: Bools, inner: NM, width: int, at_most: bool) -> Bools:
    """Return, for each block of a block row, whether a tile in it violates the pattern inside blocks of this width."""
    tile = inner.tile
    whole = len(rows) // tile.rows * tile.rows
    parts = [part for part in (rows[:whole], rows[whole:]) if len(part)]
    flags = [broken_tiles(part, inner, at_most=at_most).any(axis=0) for part in parts]
    broken = np.logical_or.reduce(flags, axis=0)
    return np.asarray(np.logical_or.reduceat(broken, np.arange(0, len(broken), width // tile.cols)))


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
