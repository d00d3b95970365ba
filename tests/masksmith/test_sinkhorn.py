import numpy as np
import pytest
import torch
from support.naive_tiles import AWKWARD, awkward, check_allowed, objective, violations

from masksmith._errors import SolverError
from masksmith._panels import Panel, to_tiles
from masksmith.patterns import parse
from masksmith.solvers._rounding.entropic import entropic_plan
from masksmith.solvers._rounding.exchange import exchange
from masksmith.solvers.base import Solver
from masksmith.solvers.greedy import Greedy
from masksmith.solvers.min_cost_flow import MinCostFlow
from masksmith.solvers.sinkhorn import Sinkhorn

PATTERNS = ("1:1", "2:2", "2:4", "<=2:4", "4:8", "<=3:8", "2:4 x 4:8", "<=3:4 x 2:6")


def panel_of(pattern, kind, down=2, across=3, seed=0):
    tile = parse(f"transposable {pattern}").tile
    return Panel(awkward(kind, (down * tile.rows, across * tile.cols), seed), tile)


def loss(panel, answer):
    best, found = sum(objective(panel, MinCostFlow()(panel))), sum(objective(panel, answer))
    return 1 - found / best


def test_is_a_solver():
    assert isinstance(Sinkhorn(), Solver)
    assert (Sinkhorn().name, Sinkhorn().parallelism, Sinkhorn(device="cuda").parallelism) == (
        "sinkhorn",
        "threads",
        "none",
    )


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("kind", AWKWARD)
def test_masks_are_allowed_and_bounds_are_true(pattern, kind):
    panel = panel_of(pattern, kind)
    answer = Sinkhorn(iterations=60)(panel)
    check_allowed(panel, answer)
    best, found = objective(panel, MinCostFlow()(panel)), objective(panel, answer)
    bounds = [value + float(gap) for value, gap in zip(found, violations(panel, answer), strict=True)]
    assert all(value <= top * (1 + 1e-12) for value, top in zip(found, best, strict=True))
    assert all(bound >= top * (1 - 1e-12) for bound, top in zip(bounds, best, strict=True))


@pytest.mark.parametrize(("pattern", "limit"), [("2:4", 1e-5), ("4:8", 1e-3), ("8:16", 1e-3), ("<=4:8", 2e-3)])
def test_masks_are_nearly_optimal_on_plain_data(pattern, limit):
    panel = panel_of(pattern, "gauss", 6, 6)
    answer = Sinkhorn()(panel)
    assert loss(panel, answer) < limit
    assert loss(panel, answer) <= loss(panel, Sinkhorn(temperature=40.0, local_search=0)(panel))
    assert loss(panel, answer) < loss(panel, Greedy()(panel))


@pytest.mark.parametrize("pattern", ["4:8", "<=2:4", "2:4 x 4:8"])
def test_the_plan_meets_its_budgets(pattern):
    tile = parse(f"transposable {pattern}").tile
    scores = torch.rand(tile.rows, tile.cols, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plan = entropic_plan(scores, tile, 5.0, 2000)[0].clamp(max=1.0)
    rows, cols = plan.sum(1), plan.sum(0)
    assert ((rows - tile.row_keep).abs() < 1e-4).all() or tile.at_most
    assert (rows < tile.row_keep + 1e-4).all()
    assert (cols < tile.col_keep + 1e-4).all()


def test_exchanges_pay_and_keep_the_sums():
    panel = panel_of("4:8", "gauss", 4, 4)
    mask = torch.from_numpy(to_tiles(Greedy()(panel).mask, panel.tile))
    scores = torch.from_numpy(to_tiles(panel.scores, panel.tile)).double()
    better = exchange(scores, mask.clone(), 50)
    assert (better.sum(1) == 4).all()
    assert (better.sum(2) == 4).all()
    assert (scores * better).sum() > (scores * mask).sum()
    assert (exchange(scores, better.clone(), 1) == better).all()


def test_neighbours_and_chunks_change_nothing():
    panel = panel_of("2:4", "ties", 70, 260)
    solver = Sinkhorn(iterations=20)
    whole, part = solver(panel), solver(Panel(np.ascontiguousarray(panel.scores[200:, 44:76]), panel.tile))
    assert (whole.mask[200:, 44:76] == part.mask).all()


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"temperature": 1e9}, {"iterations": 0}, {"local_search": -1}]
)
def test_nonsense_is_refused_by_name(options):
    with pytest.raises(SolverError, match=next(iter(options))):
        Sinkhorn(**options)


def test_refuses_what_it_cannot_do():
    assert "forced" in (Sinkhorn().refusal(parse("transposable 2:4").tile, forced=True) or "")
    assert "top-k" in (Sinkhorn().refusal(parse("2:4").tile, forced=False) or "")
    assert Sinkhorn().refusal(parse("transposable <=2:4").tile, forced=False) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_and_cpu_agree():
    panel = panel_of("8:16", "gauss", 8, 8)
    assert (Sinkhorn()(panel).mask == Sinkhorn(device="cuda")(panel).mask).all()
