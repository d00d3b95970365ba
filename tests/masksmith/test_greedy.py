import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from support.naive_tiles import AWKWARD, awkward, check_allowed, objective, tiles_of, violations

from masksmith._panels import Panel
from masksmith.patterns import parse
from masksmith.solvers._duals.sweeps import dual_value, duality_gap, selection_network, sweep_duals
from masksmith.solvers.base import Solver
from masksmith.solvers.greedy import Greedy
from masksmith.solvers.min_cost_flow import MinCostFlow
from masksmith.solvers.sinkhorn import Sinkhorn

PATTERNS = ("1:1", "2:2", "2:4", "<=2:4", "3:5", "4:8", "<=3:8", "8:16", "2:4 x 4:8", "<=3:4 x 2:6", "<=1:2 x 5:7")


def panel_of(pattern, kind, down=3, across=3, seed=0):
    tile = parse(f"transposable {pattern}").tile
    return Panel(awkward(kind, (down * tile.rows, across * tile.cols), seed), tile)


@pytest.mark.parametrize("solver", [Greedy(), Sinkhorn()], ids=str)
def test_scores_that_are_read_only_are_solved_without_a_warning(solver):
    """torch warns of them once in a process, unless it is to warn always."""
    panel = panel_of("8:16", "gauss", down=1, across=1)
    expected = solver(panel).mask
    panel.scores.flags.writeable = False
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.array_equal(solver(panel).mask, expected)
    finally:
        torch.set_warn_always(always)


def plain_greedy(scores, tile):
    mask, rows, cols = np.zeros(scores.shape, bool), [tile.row_keep] * tile.rows, [tile.col_keep] * tile.cols
    for place in np.argsort(-scores.ravel(), kind="stable"):
        i, j = divmod(int(place), tile.cols)
        if rows[i] and cols[j]:
            mask[i, j], rows[i], cols[j] = True, rows[i] - 1, cols[j] - 1
    return mask


def test_is_a_solver():
    assert isinstance(Greedy(), Solver)
    assert (Greedy().name, Greedy().parallelism, Greedy(device="cuda").parallelism) == ("greedy", "threads", "none")


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("kind", AWKWARD)
def test_masks_are_allowed_and_bounds_are_true(pattern, kind):
    panel = panel_of(pattern, kind)
    answer = Greedy()(panel)
    check_allowed(panel, answer)
    best, found = objective(panel, MinCostFlow()(panel)), objective(panel, answer)
    bounds = [value + float(gap) for value, gap in zip(found, violations(panel, answer), strict=True)]
    assert all(value <= top * (1 + 1e-12) for value, top in zip(found, best, strict=True))
    assert all(bound >= top * (1 - 1e-12) for bound, top in zip(bounds, best, strict=True))


@pytest.mark.parametrize("pattern", ["<=2:4", "<=4:8", "<=3:4 x 2:6"])
@pytest.mark.parametrize("kind", ["gauss", "ties", "zeros", "wide"])
def test_without_repair_it_is_plain_greedy(pattern, kind):
    panel = panel_of(pattern, kind)
    answer = Greedy(repair=False)(panel)
    for scores, mask, *_ in tiles_of(panel, answer):
        assert (mask == plain_greedy(scores, panel.tile)).all()


@pytest.mark.parametrize("pattern", ["<=4:8", "<=3:4 x 2:6"])
def test_repair_never_costs_in_at_most_patterns(pattern):
    panel = panel_of(pattern, "gauss", 8, 8)
    repaired, plain = objective(panel, Greedy()(panel)), objective(panel, Greedy(repair=False)(panel))
    assert all(a >= b for a, b in zip(repaired, plain, strict=True))


@pytest.mark.parametrize("pattern", ["2:4", "4:8", "8:16", "<=4:8"])
def test_mask_is_good_and_bound_is_sharp_on_plain_data(pattern):
    panel = panel_of(pattern, "gauss", 8, 8)
    answer = Greedy()(panel)
    best, found = sum(objective(panel, MinCostFlow()(panel))), sum(objective(panel, answer))
    assert found > 0.985 * best
    assert found + float(sum(violations(panel, answer))) < best * (1 + 1e-4)


def test_chunks_and_neighbours_change_nothing():
    panel = panel_of("2:4", "ties", 80, 256)
    whole, part = Greedy()(panel), Greedy()(Panel(panel.scores[300:, 40:60], panel.tile))
    assert (whole.mask[300:, 40:60] == part.mask).all()
    assert (whole.row_duals[75:, 10:15] == part.row_duals).all()


def test_torch_has_its_threads_back_afterwards():
    before, panel = torch.get_num_threads(), panel_of("2:4", "gauss", 64, 64)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(Greedy(), [panel] * 8))
        assert set(pool.map(lambda _: torch.get_num_threads(), range(8))) == {before}
    Greedy()(panel)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("solver", "pattern", "forced", "word"),
    [
        (Greedy(), "transposable 2:4", True, "forced"),
        (Greedy(), "2:4", False, "top-k"),
        (Greedy(repair=False), "transposable 2:4", False, "under-filled"),
    ],
)
def test_refuses_what_it_cannot_do(solver, pattern, forced, word):
    assert word in (solver.refusal(parse(pattern).tile, forced=forced) or "")


def test_accepts_the_rest():
    assert Greedy().refusal(parse("transposable 2:4 x 4:8").tile, forced=False) is None
    assert Greedy(repair=False).refusal(parse("transposable <=2:4").tile, forced=False) is None


@pytest.mark.parametrize("m", [2, 3, 7, 8, 16, 33, 64])
def test_selection_networks_find_two_neighbours_in_order(m):
    entries = np.random.default_rng(m).integers(0, 9, (m, 40))
    for keep in range(1, m):
        wires = entries.copy()
        for low, high in selection_network(m, keep):
            wires[low], wires[high] = np.maximum(wires[low], wires[high]), np.minimum(wires[low], wires[high])
        assert (wires[keep - 1 : keep + 1] == -np.sort(-entries, axis=0)[keep - 1 : keep + 1]).all()


@pytest.mark.parametrize("pattern", ["4:8", "<=4:8", "<=3:4 x 2:6"])
def test_more_sweeps_make_better_duals_and_the_duality_gap_is_the_difference(pattern):
    tile = parse(f"transposable {pattern}").tile
    scores = torch.rand(tile.rows, tile.cols, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = [dual_value(scores, tile, *sweep_duals(scores, tile, sweeps)).sum() for sweeps in (1, 4, 16)]
    assert values == sorted(values, reverse=True)
    u, v = sweep_duals(scores, tile)
    mask = torch.from_numpy(np.stack([plain_greedy(w.numpy(), tile) for w in scores.unbind(2)], 2))
    if tile.at_most or (mask.sum(0) == tile.col_keep).all():
        kept = (scores * mask).sum((0, 1))
        torch.testing.assert_close(duality_gap(scores, mask, tile, u, v), dual_value(scores, tile, u, v) - kept)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_and_cpu_agree():
    panel = panel_of("8:16", "gauss", 8, 8)
    cpu, gpu = Greedy()(panel), Greedy(device="cuda")(panel)
    assert (cpu.mask == gpu.mask).all()
    assert (cpu.row_duals == gpu.row_duals).all()
