"""Oracles that share nothing with the solvers: HiGHS for optima, enumeration for 4 x 4, and exact slackness."""

from __future__ import annotations

from functools import cache
from itertools import combinations, product

import numpy as np
from scipy.optimize import linprog

from masksmith._panels import Panel, PanelAnswer, to_tiles


def _exact_sign(w, u, v):
    """Sign of `w - (u + v)` without any rounding (Knuth's TwoSum gives the rounding error of `u + v`)."""
    total = u + v
    part = total - u
    rest = (u - (total - part)) + (v - part)
    return np.where(w == total, -np.sign(rest), np.sign(w - total))


def unproved_tiles(panel: Panel, answer: PanelAnswer) -> int:
    """Check budgets and forced entries of every tile; count those whose duals do not prove them optimal."""
    tile = panel.tile
    scores, mask = to_tiles(panel.scores, tile).astype(np.float64), to_tiles(answer.mask, tile)
    forced = np.zeros(scores.shape, np.int8) if panel.forced is None else to_tiles(panel.forced, tile)
    u, v = answer.row_duals.reshape(len(scores), -1, 1), answer.col_duals.reshape(len(scores), 1, -1)
    rows, cols = mask.sum(2), mask.sum(1)
    for counts, keep in ((rows, tile.row_keep), (cols, tile.col_keep)):
        assert (counts <= keep).all()
        assert tile.at_most or (counts == keep).all()
    assert mask[forced > 0].all()
    assert not mask[forced < 0].any()
    assert all(np.isfinite(duals).all() for duals in (u, v))
    wrong = ((_exact_sign(scores, u, v) * np.where(mask, 1, -1) < 0) & (forced == 0)).any((1, 2))
    if tile.at_most:
        assert min(u.min(), v.min()) >= 0
        wrong |= ((u[:, :, 0] > 0) & (rows < tile.row_keep)).any(1) | ((v[:, 0] > 0) & (cols < tile.col_keep)).any(1)
    return int(wrong.sum())


def kept_score(panel: Panel, answer: PanelAnswer) -> np.ndarray:
    """Score kept in every tile."""
    tile = panel.tile
    return np.where(to_tiles(answer.mask, tile), to_tiles(panel.scores, tile), 0).sum((1, 2), dtype=np.float64)


def best_scores(panel: Panel) -> list[float | None]:
    """Optimum of every tile by linear programming (the vertices are integral); None where nothing is allowed."""
    tiles = to_tiles(panel.scores, panel.tile).astype(np.float64)
    forced = np.zeros(tiles.shape, np.int8) if panel.forced is None else to_tiles(panel.forced, panel.tile)
    return [_linear_program(w, f, panel.tile) for w, f in zip(tiles, forced, strict=True)]


TIGHT = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
"""Tolerances of HiGHS, which are absolute: beside one large score, the default hides differences between the others."""


def _linear_program(w, forced, tile):
    scale = w[forced == 0].max(initial=0.0) or 1.0
    sums = np.vstack([np.kron(np.eye(tile.rows), np.ones(tile.cols)), np.tile(np.eye(tile.cols), tile.rows)])
    budgets = np.r_[np.full(tile.rows, tile.row_keep), np.full(tile.cols, tile.col_keep)]
    sides = {"A_ub": sums, "b_ub": budgets} if tile.at_most else {"A_eq": sums, "b_eq": budgets}
    bounds = np.stack([forced.ravel() > 0, forced.ravel() >= 0], axis=1).astype(float)
    found = linprog(-(w / scale).ravel(), bounds=bounds, method="highs", options=TIGHT, **sides)
    return None if found.status == 2 else float(np.sum(w.ravel()[found.x > 0.5]))


def check_best(panel: Panel, answer: PanelAnswer) -> None:
    """Assert that no tile keeps less than HiGHS does, whose result may be below the optimum by its own tolerance."""
    kept, best = kept_score(panel, answer), np.array(best_scores(panel), dtype=np.float64)
    assert (kept >= best * (1 - 1e-12)).all()
    np.testing.assert_allclose(kept, best, rtol=1e-4)


@cache
def four_by_four(n: int, at_most: bool) -> np.ndarray:
    """Every allowed mask of an n:4 tile."""
    sizes = range(n + 1) if at_most else (n,)
    rows = [[int(k in chosen) for k in range(4)] for size in sizes for chosen in combinations(range(4), size)]
    masks = np.array(list(product(rows, repeat=4)), np.int8)
    sums = masks.sum(1)
    return masks[(sums <= n).all(1) if at_most else (sums == n).all(1)]
