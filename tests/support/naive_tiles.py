"""Slow oracles for single panels: certificates in fractions, optima from HiGHS, and scores that are hard to solve."""

from fractions import Fraction

import numpy as np
from scipy.optimize import linprog

from masksmith._panels import Panel, PanelAnswer, to_tiles
from masksmith.patterns import TileSpec


def tiles_of(panel: Panel, answer: PanelAnswer):
    """Yield scores, mask, forced, row duals and column duals tile by tile."""
    tile, count = panel.tile, panel.down * panel.across
    forced = np.zeros(panel.scores.shape, np.int8) if panel.forced is None else panel.forced
    yield from zip(
        to_tiles(panel.scores, tile),
        to_tiles(answer.mask, tile),
        to_tiles(forced, tile),
        answer.row_duals.reshape(count, tile.rows),
        answer.col_duals.reshape(count, tile.cols),
        strict=True,
    )


def check_allowed(panel: Panel, answer: PanelAnswer) -> None:
    """Assert shapes, types, budgets and forced entries."""
    tile = panel.tile
    assert answer.mask.shape == panel.scores.shape
    assert answer.mask.dtype == np.bool_
    assert answer.row_duals.shape == (panel.down, panel.across, tile.rows)
    assert answer.col_duals.shape == (panel.down, panel.across, tile.cols)
    assert answer.row_duals.dtype == answer.col_duals.dtype == np.float64
    for _, mask, forced, _, _ in tiles_of(panel, answer):
        _check_sums(mask.sum(1), tile.row_keep, tile.at_most)
        if not tile.separable:
            _check_sums(mask.sum(0), tile.col_keep, tile.at_most)
        assert mask[forced > 0].all()
        assert not mask[forced < 0].any()


def _check_sums(sums, keep, at_most):
    assert (sums <= keep).all()
    assert at_most or (sums == keep).all()


def violations(panel: Panel, answer: PanelAnswer) -> list[Fraction]:
    """Return each tile's violation of complementary slackness, without rounding; 0 proves the tile optimal."""
    return [_violation(panel.tile, *parts) for parts in tiles_of(panel, answer)]


def _violation(tile, scores, mask, forced, u, v):
    u, v = [Fraction(x) for x in u.tolist()], [Fraction(x) for x in v.tolist()]
    total = Fraction(0)
    for i, j in zip(*np.nonzero(forced == 0), strict=True):
        reduced = Fraction(float(scores[i, j])) - u[i] - v[j]
        total += max(Fraction(0), -reduced if mask[i, j] else reduced)
    if tile.at_most:
        assert min(u + v) >= 0
        total += sum(a * int(tile.row_keep - kept) for a, kept in zip(u, mask.sum(1), strict=True))
        if not tile.separable:
            total += sum(b * int(tile.col_keep - kept) for b, kept in zip(v, mask.sum(0), strict=True))
    return total


def objective(panel: Panel, answer: PanelAnswer) -> list[float]:
    """Return the score kept in each tile."""
    return [float(scores.astype(np.float64)[mask].sum()) for scores, mask, *_ in tiles_of(panel, answer)]


def best(scores, tile: TileSpec, forced=None) -> float | None:
    """Return the largest score that an allowed mask of one tile keeps, from HiGHS; None if no mask is allowed."""
    rows, cols = scores.shape
    forced = np.zeros(scores.shape) if forced is None else forced
    matrix = [np.kron(np.eye(rows), np.ones(cols))]
    limit = [np.full(rows, tile.row_keep)]
    if not tile.separable:
        matrix.append(np.kron(np.ones(rows), np.eye(cols)))
        limit.append(np.full(cols, tile.col_keep))
    peak = float(np.where(forced < 0, 0.0, scores).max()) or 1.0
    found = linprog(
        -(np.where(forced < 0, 0.0, scores) / peak).ravel(),
        A_eq=None if tile.at_most else np.concatenate(matrix),
        b_eq=None if tile.at_most else np.concatenate(limit),
        A_ub=np.concatenate(matrix) if tile.at_most else None,
        b_ub=np.concatenate(limit) if tile.at_most else None,
        bounds=np.stack([(forced > 0).ravel(), (forced >= 0).ravel()], 1).astype(float),
        method="highs-ds",
    )
    return None if found.x is None else float(scores.astype(np.float64).ravel()[found.x > 0.5].sum())


AWKWARD = ("gauss", "ties", "binary", "zeros", "constant", "one-hot", "additive", "wide", "tiny", "columns", "float64")


def awkward(kind: str, shape: tuple[int, int], seed: int = 0):
    """Make scores that are hard to solve: ties, zeros, very different magnitudes."""
    rng = np.random.default_rng(seed)
    made = {
        "gauss": lambda: np.abs(rng.standard_normal(shape)),
        "ties": lambda: rng.integers(0, 4, shape),
        "binary": lambda: rng.integers(0, 2, shape),
        "zeros": lambda: np.zeros(shape),
        "constant": lambda: np.full(shape, 0.1),
        "one-hot": lambda: np.where(rng.random(shape) < 0.02, 3.0, 0.0),
        "additive": lambda: rng.integers(0, 99, (shape[0], 1)) + rng.integers(0, 99, (1, shape[1])),
        "wide": lambda: 10.0 ** rng.uniform(-6, 6, shape),
        "tiny": lambda: 1e-42 * rng.integers(0, 9, shape),
        "columns": lambda: np.abs(rng.standard_normal(shape)) * 2.0 ** rng.integers(-6, 6, (1, shape[1])),
        "float64": lambda: np.abs(rng.standard_normal(shape)),
    }[kind]()
    return np.ascontiguousarray(made, dtype=np.float64 if kind == "float64" else np.float32)


def some_forced(shape: tuple[int, int], seed: int = 0, share: float = 0.1):
    """Force a few entries to be kept, and a few to be dropped."""
    rng = np.random.default_rng(seed)
    return rng.choice(np.array([1, 0, -1], np.int8), shape, p=[share / 2, 1 - share, share / 2])
