"""Tiles of the shortest-path kernels from plain matrices, and exact checks of what the kernels write to them."""

from fractions import Fraction

import numpy as np

from masksmith.kernels.tile import Budget, Tile, new_search, new_tile
from masksmith.patterns import TileSpec
from masksmith.solvers.exact import kernel_budget

SPECS = [
    TileSpec(4, 4, 2, 2),
    TileSpec(4, 4, 2, 2, True),
    TileSpec(8, 8, 3, 3),
    TileSpec(5, 7, 2, 3, True),
    TileSpec(4, 8, 4, 2),
    TileSpec(4, 8, 4, 2, True),
    TileSpec(1, 1, 1, 1),
    TileSpec(9, 9, 4, 4, True),
]
"""Square and oblong tiles, on both sides of the vector length 8, with exact and at-most budgets."""


def make_tile(scores, spec, mask=None, free=None, u=None, v=None):
    """Return a tile, its budget and the work arrays of a search."""
    budget = kernel_budget(spec)
    tile = new_tile(spec.rows, spec.cols)
    parts = {"w": scores, "kept": mask, "free": free}
    for name, values in parts.items():
        if values is not None:
            getattr(tile, name)[:] = np.asarray(values).ravel()
            getattr(tile, f"{name}_t")[:] = np.asarray(values).T.ravel()
    if u is not None:
        tile.u[:] = u
    if v is not None:
        tile.v[:] = v
    return tile, budget, new_search(spec.rows, budget.width)


def mask_of(tile: Tile, budget: Budget):
    """Return the mask `[rows, cols]`, after a check that both copies are equal."""
    mask = tile.kept.reshape(budget.rows, budget.cols).astype(bool)
    assert np.array_equal(mask.T, tile.kept_t.reshape(budget.cols, budget.rows).astype(bool))
    return mask


def satisfies_slackness(tile: Tile, budget: Budget, rows_full=True, cols_full=True) -> bool:
    """Whether every free entry, and (at-most fill) every line, satisfies complementary slackness, in fractions."""
    u, v = ([Fraction(x) for x in duals.tolist()] for duals in (tile.u, tile.v))
    mask, free = mask_of(tile, budget), tile.free.reshape(budget.rows, budget.cols)
    for i, j in zip(*np.nonzero(free), strict=True):
        rest = Fraction(tile.w[i * budget.cols + j]) - u[i] - v[j]
        if (rest if mask[i, j] else -rest) < 0:
            return False
    if not budget.at_most:
        return True
    sides = [(u, mask.sum(1), budget.row_keep)] * rows_full + [(v, mask.sum(0), budget.col_keep)] * cols_full
    return all(
        x >= 0 and (x == 0 or count >= keep)
        for duals, counts, keep in sides
        for x, count in zip(duals, counts, strict=True)
    )


def is_legal(mask, spec) -> bool:
    """Whether a mask satisfies the budgets of rows and columns."""
    rows, cols = mask.sum(1), mask.sum(0)
    if spec.at_most:
        return bool((rows <= spec.row_keep).all() and (cols <= spec.col_keep).all())
    return bool((rows == spec.row_keep).all() and (cols == spec.col_keep).all())


def any_legal_mask(spec):
    """Return a mask that fills rows and columns as far as the smaller total budget allows."""
    mask, next_col = np.zeros((spec.rows, spec.cols), bool), 0
    left = np.full(spec.cols, spec.col_keep)
    for i in range(spec.rows):
        chosen = sorted(range(spec.cols), key=lambda j: (-left[j], (j - next_col) % spec.cols))[: spec.row_keep]
        chosen = [j for j in chosen if left[j] > 0]
        mask[i, chosen], next_col = True, next_col + spec.row_keep
        left[chosen] -= 1
    return mask
