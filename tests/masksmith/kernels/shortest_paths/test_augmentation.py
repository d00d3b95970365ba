"""Augmenting paths and free moves: column budgets hold after them, and integer tiles are solved exactly."""

import numpy as np
import pytest
from support.kernel_tiles import SPECS, is_legal, make_tile, mask_of, satisfies_slackness
from support.naive_tiles import AWKWARD, awkward, best, some_forced

from masksmith.kernels.shortest_paths.augmentation import _count_excess, _write_costs, balance_columns
from masksmith.kernels.shortest_paths.free_moves import move_free
from masksmith.kernels.shortest_paths.initial_mask import fix_forced, initialise_tile

INTEGERS = ("ties", "binary", "zeros", "one-hot", "additive")


def opened(w, spec, forced=None):
    """A tile whose rows satisfy their budgets; None if forced entries make a line infeasible by themselves."""
    tile, budget, search = make_tile(w, spec)
    codes = np.zeros(w.size, np.uint8) if forced is None else forced.astype(np.uint8).ravel()
    if not fix_forced(tile, budget, codes) or not initialise_tile(tile, budget, search):
        return None
    return tile, budget, search


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("kind", AWKWARD)
def test_column_budgets_hold_and_the_mask_is_the_best(spec, kind):
    for seed in range(3):
        w = awkward(kind, (spec.rows, spec.cols), seed).astype(np.float64)
        tile, budget, search = opened(w, spec)
        assert balance_columns(tile, budget, search)
        mask = mask_of(tile, budget)
        assert is_legal(mask, spec)
        assert w[mask].sum() == pytest.approx(best(w, spec), rel=1e-7)
        if kind in INTEGERS:
            assert satisfies_slackness(tile, budget)
            assert w[mask].sum() == best(w, spec)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_forced_entries_are_kept_or_the_tile_is_infeasible(spec):
    for seed in range(12):
        w = awkward("ties", (spec.rows, spec.cols), seed).astype(np.float64)
        forced = some_forced(w.shape, seed, share=0.5)
        state = opened(w, spec, forced)
        solved = state is not None and balance_columns(*state)
        optimum = best(w, spec, forced)
        assert solved == (optimum is not None)
        if solved:
            mask = mask_of(*state[:2])
            assert is_legal(mask, spec)
            assert mask[forced > 0].all()
            assert not mask[forced < 0].any()
            assert w[mask].sum() == optimum


def reachable(source, add, drop, excess, cols):
    """Columns that tight edges reach from `source`, by repeated relaxation; the outer node only ends a path."""
    seen, again = {source}, True
    while again:
        rows = {i for j in seen if j < cols or j == source for i in range(len(add)) if drop[j, i] == 0.0}
        more = {k for i in rows for k in range(add.shape[1]) if add[i, k] == 0.0} - seen
        seen, again = seen | more, bool(more)
    return any(excess[k] < 0 for k in seen)


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("kind", ["ties", "binary", "zeros", "constant", "gauss"])
def test_free_moves_use_tight_edges_and_leave_no_tight_path(spec, kind):
    for seed in range(3):
        tile, budget, search = opened(awkward(kind, (spec.rows, spec.cols), seed).astype(np.float64), spec)
        _count_excess(tile, budget, search)
        _write_costs(tile, budget, search)
        before, rows = mask_of(tile, budget), mask_of(tile, budget).sum(1)
        wide, tall = len(search.col_d), len(search.row_d)
        add = search.add_cost.reshape(spec.rows, wide)[:, : budget.width].copy()
        drop = search.drop_cost.reshape(budget.width, tall)[:, : spec.rows].copy()
        excess = search.excess.copy()
        moved = move_free(tile, budget, search)
        after = mask_of(tile, budget)
        assert moved == (search.excess.tolist() != excess.tolist())
        assert (add[:, : spec.cols][after & ~before] == 0.0).all()
        assert (drop[: spec.cols].T[before & ~after] == 0.0).all()
        assert np.array_equal(after.sum(0) - before.sum(0), (search.excess - excess)[: spec.cols])
        assert (after.sum(1) <= rows).all() if spec.at_most else (after.sum(1) == rows).all()
        add = search.add_cost.reshape(spec.rows, wide)[:, : budget.width]
        drop = search.drop_cost.reshape(budget.width, tall)[:, : spec.rows]
        sources = np.flatnonzero(search.excess[: spec.cols] > 0)
        assert not any(reachable(j, add, drop, search.excess, spec.cols) for j in sources)
