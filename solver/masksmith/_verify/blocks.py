"""Verifies masks of block patterns and hybrid patterns by counting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from masksmith._panels import Bools
from masksmith._tensors import MatrixReader
from masksmith.patterns import NM, Block, Grid, Hybrid

from .findings import Finding, strips
from .tiles import broken_tiles


def check_block(mask: MatrixReader, pattern: Block, at_most: bool) -> Finding:
    """Check the blocks of a mask, and the numbers of blocks that it keeps.

    Without a nested pattern, each block must be kept or dropped as a whole; otherwise each kept block must obey the
    nested pattern. With `ragged="dense"`, the blocks of the edge must be dense. With `at_most`, a block may keep fewer
    entries, and fewer blocks may be kept than the budgets say.
    """
    grid = pattern.grid(mask.shape)
    down, across = pattern.blocks(grid)
    kept = np.zeros((grid.down, grid.across), np.bool_)
    broken = np.zeros((grid.down, grid.across), np.bool_)
    for first, rows in strips(mask, pattern.rows):
        block_row = first // pattern.rows
        kept[block_row], broken[block_row] = _block_flags(rows, pattern, across if block_row < down else 0, at_most)
    if not broken.any():
        return _check_budgets(kept[:down, :across], pattern, mask, at_most)
    broken_count = int(broken.sum())
    violation = "are only partly kept" if pattern.nested is None else "violate the pattern"
    if pattern.ragged == "dense" and not at_most:
        violation += ", or are in the dense edge and not dense"
    message = f"{broken_count} of {grid.tiles} blocks {violation}, the first is block {list(_first_true(broken))}"
    return Finding(message, _first_true(broken), broken_count, grid.tiles)


def _block_flags(rows: Bools, pattern: Block, across: int, at_most: bool) -> tuple[Bools, Bools]:
    """Return, for each block of a block row, whether it keeps an entry, and whether it violates the pattern.

    Args:
        rows: The block row.
        pattern: The block pattern. If it has a nested pattern, a kept block must obey the nested pattern; otherwise a
            block must not be kept only partly, unless `at_most`.
        across: Number of blocks that may be dropped; with `ragged="dense"` the blocks to the right of them are the
            edge, and must be dense.
        at_most: Whether fewer entries are allowed; then the edge may be dropped, too.
    """
    lefts = np.arange(0, rows.shape[1], pattern.cols)
    counts = np.add.reduceat(rows.sum(0), lefts)
    kept, is_full = counts > 0, counts == len(rows) * np.diff(lefts, append=rows.shape[1])
    if pattern.nested is not None:
        broken = kept & _violates_inside(rows, pattern.nested, pattern.cols, at_most)
    else:
        broken = np.zeros(len(counts), np.bool_) if at_most else kept & ~is_full
    if pattern.ragged == "dense":
        broken[across:] = False if at_most else ~is_full[across:]
    return np.asarray(kept), np.asarray(broken)


def _first_true(flags: Bools) -> tuple[int, int]:
    row, col = (int(indices[0]) for indices in np.nonzero(flags))
    return row, col


def check_hybrid(mask: MatrixReader, pattern: Hybrid, at_most: bool) -> Finding:
    """Check that every block is dense or n:m, and the number of dense blocks.

    A block may be both: under n:m along `in`, for example, a dense block that the edge of the matrix cuts to at most
    n columns.
    With `at_most`, each block may keep fewer entries, so only the number of blocks that keep more than n:m is checked.
    """
    grid = pattern.grid(mask.shape)
    down, across = pattern.blocks(grid)
    dense, fits = _dense_and_fitting(mask, pattern, grid, at_most)
    finding = Finding() if at_most else _check_each_block(dense, fits, pattern, (down, across))
    if not finding.message:
        finding = _check_dense_count(
            dense[:down, :across], fits[:down, :across], pattern, at_most, pattern.dense_blocks(grid)
        )
    return replace(finding, tiles=grid.tiles)


def _dense_and_fitting(mask: MatrixReader, pattern: Hybrid, grid: Grid, at_most: bool) -> tuple[Bools, Bools]:
    """Return, for each block of the grid, whether it is dense, and whether it obeys the inner pattern."""
    dense, fits = np.zeros((grid.down, grid.across), np.bool_), np.zeros((grid.down, grid.across), np.bool_)
    lefts = np.arange(0, grid.cols, pattern.cols)
    for first, rows in strips(mask, pattern.rows):
        block_row = first // pattern.rows
        dense[block_row] = np.logical_and.reduceat(rows.all(axis=0), lefts)
        fits[block_row] = ~_violates_inside(rows, pattern.inner, pattern.cols, at_most)
    return dense, fits


def _check_each_block(dense: Bools, fits: Bools, pattern: Hybrid, shape_without_edge: tuple[int, int]) -> Finding:
    """Check that every block is dense or n:m, and that the blocks of a dense edge are dense.

    Args:
        dense: Whether each block is dense.
        fits: Whether each block obeys the inner pattern.
        pattern: The pattern.
        shape_without_edge: Numbers of block rows and block columns without the dense edge.
    """
    is_edge = np.ones_like(dense)
    is_edge[: shape_without_edge[0], : shape_without_edge[1]] = False
    for broken, violation in (
        (is_edge & ~dense, "of the edge are not dense"),
        (~is_edge & ~dense & ~fits, f"are neither dense nor {pattern.inner}"),
    ):
        if broken.any():
            first = _first_true(broken)
            message = f"{int(broken.sum())} of {dense.size} blocks {violation}, the first is block {list(first)}"
            return Finding(message, first, int(broken.sum()))
    return Finding()


def _check_dense_count(dense: Bools, fits: Bools, pattern: Hybrid, at_most: bool, expected: int) -> Finding:
    """Check the number of dense blocks; a dense block that is also n:m may be taken as dense or as n:m.

    `dense` and `fits` are without the dense edge. With `at_most`, fewer blocks may be dense.
    """
    # Blocks that must count as dense, since they do not obey the inner pattern.
    must_be_dense, actual = np.argwhere(~fits), int(dense.sum())
    if len(must_be_dense) > expected:
        position = (int(must_be_dense[expected][0]), int(must_be_dense[expected][1]))
        message = f"{len(must_be_dense)} blocks keep more than {pattern.inner}, only {expected} may"
        return Finding(f"{message}: block {list(position)} is one too many", position, len(must_be_dense) - expected)
    if actual < expected and not at_most:
        return Finding(f"{actual} blocks are dense instead of {expected}", (0, 0), 1)
    return Finding()


def _violates_inside(rows: Bools, inner: NM, width: int, at_most: bool) -> Bools:
    """Return, for each block of this width in a block row, whether a tile in it violates the inner pattern."""
    tile = inner.tile
    covered = len(rows) // tile.rows * tile.rows
    # The rows below the last whole tile row are a tile row of less height.
    parts = [part for part in (rows[:covered], rows[covered:]) if len(part)]
    flags = [broken_tiles(part, inner, at_most=at_most).any(axis=0) for part in parts]
    broken = np.logical_or.reduce(flags, axis=0)
    return np.asarray(np.logical_or.reduceat(broken, np.arange(0, len(broken), width // tile.cols)))


def _check_budgets(kept: Bools, pattern: Block, mask: MatrixReader, at_most: bool) -> Finding:
    """Check how many blocks are kept per block row, per block column and in total; `kept` is without the dense edge."""
    grid = pattern.grid(mask.shape)
    by_row, by_col, total = pattern.budgets(grid)
    for counts, expected, name in ((kept.sum(1), by_row, "row"), (kept.sum(0), by_col, "column")):
        if expected is None:
            continue
        limits = np.asarray(expected)
        wrong = np.flatnonzero(counts > limits if at_most else counts != limits)
        if wrong.size:
            first = int(wrong[0])
            message = f"block {name} {first} keeps {int(counts[first])} blocks instead of {expected[first]}"
            return Finding(message, (first, 0) if name == "row" else (0, first), len(wrong), grid.tiles)
    actual = int(kept.sum())
    if actual > total or (actual < total and not at_most):
        return Finding(f"{actual} blocks are kept instead of {total}", (0, 0), 1, grid.tiles)
    return Finding(tiles=grid.tiles)
