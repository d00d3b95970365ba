"""Budgets shared out: against enumeration of every way to do it, and against sorting all scores at once."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import masksmith as ms
from masksmith.allocation import allocation, knapsack
from masksmith.patterns import capacity
from masksmith.patterns.budget import patterns_of_each_n

RNG = np.random.default_rng(11)
LAYERS = {
    "large": RNG.random((16, 24)).astype(np.float32) * 3,
    "small": RNG.random((8, 8)).astype(np.float32),
    "conv": RNG.random((6, 4, 3, 1)).astype(np.float32) * 2,
}
TOTAL = sum(layer.size for layer in LAYERS.values())


def kept(solutions):
    return sum(solution.kept for solution in solutions.values())


def objective(solutions):
    return math.fsum(solution.objective for solution in solutions.values())


def solve(layers, pattern, budget):
    return ms.solve_many(layers, ms.allocate(layers, pattern, budget).patterns)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.937, 1.0])
@pytest.mark.parametrize("double", [False, True])
def test_entries_are_the_largest_of_the_whole_model(share, double):
    rng, kind = np.random.default_rng(5), np.float64 if double else np.float32
    layers = {name: rng.random(layer.shape).astype(kind) for name, layer in LAYERS.items()}
    allocation = ms.allocate(layers, ms.Unstructured(share), share)
    solutions = ms.solve_many(layers, allocation.patterns)
    expected = round(share * TOTAL)
    largest = np.sort(np.concatenate([layer.ravel() for layer in layers.values()]))[::-1][:expected]
    assert kept(solutions) == expected
    assert objective(solutions) == pytest.approx(largest.sum(dtype=np.float64))
    assert allocation.gap == 0.0
    assert {solution.status for solution in solutions.values()} == {"optimal"}


@given(
    seed=st.integers(0, 999), share=st.integers(2, 98), floor=st.integers(1, 60), levels=st.sampled_from([2, 5, 1000])
)
@settings(max_examples=60, deadline=None)
def test_floors_and_ties_against_sorting_what_the_floors_leave(seed, share, floor, levels):
    rng = np.random.default_rng(seed)
    layers = {name: rng.integers(0, levels, layer.shape).astype(np.float32) for name, layer in LAYERS.items()}
    budget = ms.Budget(f"{share}%", {"small": f"{floor}%"})
    floors = {name: max(1, math.ceil(floor * 64 / 100) if name == "small" else 1) for name in layers}
    expected = int(share * TOTAL / 100 + 0.5)
    if sum(floors.values()) > expected:
        with pytest.raises(ms.PatternError, match="need"):
            ms.allocate(layers, f"{share}%", budget)
        return
    solutions = solve(layers, f"{share}%", budget)
    ordered = {name: np.sort(layer.ravel())[::-1] for name, layer in layers.items()}
    rest = np.sort(np.concatenate([ordered[name][floors[name] :] for name in layers]))[::-1]
    best = sum(ordered[name][: floors[name]].sum() for name in layers) + rest[: expected - sum(floors.values())].sum()
    assert kept(solutions) == expected
    assert objective(solutions) == pytest.approx(best)
    assert all(solution.kept >= floors[name] for name, solution in solutions.items())


@pytest.mark.parametrize(
    "pattern", ["block 4x4 40%", "block 2x8 40% norm l2", "block 4x3 40% norm mean", "block 8x8 40% nested 2:4"]
)
def test_blocks_are_the_best_of_the_whole_model(pattern):
    layers = {name: LAYERS[name] for name in ("large", "small")}
    rule = ms.parse(pattern)
    allocation = ms.allocate(layers, rule, "40%")
    solutions = ms.solve_many(layers, allocation.patterns)
    grids = {name: ms.Block(rule.rows, rule.cols, 1.0).grid(layer.shape) for name, layer in layers.items()}
    total = sum(grid.tiles for grid in grids.values())
    counts = {name: round(allocation.patterns[name].density * grid.tiles) for name, grid in grids.items()}
    assert sum(counts.values()) == int(0.4 * total + 0.5)
    objectives = []
    for split in itertools.product(*(range(1, grid.tiles + 1) for grid in grids.values())):
        if sum(split) != sum(counts.values()):
            continue
        shares = zip(layers, split, strict=True)
        patterns = {
            name: ms.Block(rule.rows, rule.cols, n / grids[name].tiles, norm=rule.norm, nested=rule.nested)
            for name, n in shares
        }
        objectives.append(objective(ms.solve_many(layers, patterns)))
    assert objective(solutions) == pytest.approx(max(objectives))


@pytest.mark.parametrize("pattern", ["2:4", "<=1:4", "transposable 2:4", "transposable 1:3 x 2:6"])
@pytest.mark.parametrize(("share", "floors"), [(0.5, {}), (0.61, {}), (0.5, {"small": "75%"})])
def test_n_is_chosen_as_well_as_can_be(pattern, share, floors, monkeypatch):
    layers = {name: LAYERS[name] for name in ("large", "small")}
    budget = ms.Budget(share, floors)
    allocation = ms.allocate(layers, pattern, budget)
    solutions = ms.solve_many(layers, allocation.patterns)
    room = int(share * sum(layer.size for layer in layers.values()))
    objectives = []
    for choice in itertools.product(*(patterns_of_each_n(ms.parse(pattern), budget.floor_of(name)) for name in layers)):
        patterns = dict(zip(layers, choice, strict=True))
        if sum(capacity(patterns[name], layer.shape) for name, layer in layers.items()) <= room:
            objectives.append(objective(ms.solve_many(layers, patterns)))
    assert kept(solutions) <= room
    assert objective(solutions) == pytest.approx(max(objectives))
    assert allocation.gap == 0.0
    monkeypatch.setattr(knapsack, "MAX_WORK", 0)
    stepped = ms.allocate(layers, pattern, budget)
    reached = objective(ms.solve_many(layers, stepped.patterns))
    assert reached <= max(objectives) * (1 + 1e-6)
    assert max(objectives) <= reached / (1 - stepped.gap) * (1 + 1e-6)
    for name, floor in floors.items():
        assert allocation.patterns[name].density >= float(floor[:-1]) / 100


@pytest.mark.parametrize("max_work", [knapsack.MAX_WORK, 0])
@pytest.mark.parametrize("pattern", ["transposable 2:4", "block 4x4 50% nested transposable 2:4"])
def test_gap_includes_what_solves_leave_unproved(pattern, max_work, monkeypatch):
    monkeypatch.setattr(knapsack, "MAX_WORK", max_work)
    rng = np.random.default_rng(1)
    layers = {name: np.ldexp(rng.random((40, 40)), rng.integers(-150, 150, (40, 40))) for name in "ab"}
    allocation = ms.allocate(layers, pattern, "50%")
    solutions = ms.solve_many(layers, allocation.patterns)
    reached, bound = objective(solutions), math.fsum(solution.upper_bound for solution in solutions.values())
    assert {solution.status for solution in solutions.values()} == {"feasible"}
    # The bound of blocks is rounded up once more than that of their nested mask, which the allocation uses.
    assert 0 < (bound - reached) / bound <= 2.1 * allocation.gap
    assert allocation.gap < 1e-6 or max_work == 0


def test_a_layer_of_larger_scores_gets_a_larger_n():
    layers = {"a": RNG.random((64, 64)) * 10, "b": RNG.random((64, 64))}
    allocation = ms.allocate(layers, "8:16", "50%")
    assert allocation.patterns["a"].n > 8 > allocation.patterns["b"].n
    assert allocation.gap == 0.0


def test_n_along_outputs_and_ragged_edges_are_counted_as_they_are_solved():
    layers = {"a": RNG.random((10, 7)).astype(np.float32), "b": RNG.random((9, 5)).astype(np.float32)}
    for rule in (ms.NM(2, 4, axis="out"), ms.NM(2, 4, ragged="dense"), ms.NM(2, 4, transposable=True)):
        solutions = solve(layers, rule, 0.8)
        assert kept(solutions) <= int(0.8 * (70 + 45))


def test_slices_change_nothing(monkeypatch):
    whole = [ms.allocate(LAYERS, pattern, "40%").patterns for pattern in ("40%", "2:4", "transposable 2:4")]
    blocks = ms.allocate(LAYERS, "block 4x4 40%", "40%").patterns
    monkeypatch.setattr(allocation, "SLICE_ENTRIES", 50)
    assert [ms.allocate(LAYERS, pattern, "40%").patterns for pattern in ("40%", "2:4", "transposable 2:4")] == whole
    assert ms.allocate(LAYERS, "block 4x4 40%", "40%").patterns == blocks


def test_a_last_slice_without_a_whole_block_stays_dense(monkeypatch):
    rng, pattern = np.random.default_rng(3), ms.Block(4, 4, 0.5, ragged="dense")
    layers = {"a": rng.random((18, 8)), "b": rng.random((9, 8))}
    whole = ms.allocate(layers, pattern, 0.5)
    monkeypatch.setattr(allocation, "SLICE_ENTRIES", 1)
    assert ms.allocate(layers, pattern, 0.5) == whole
    layers["a"][17, 3] = np.nan
    with pytest.raises(ms.ScoresError, match=r"'a'.*17, 3"):
        ms.allocate(layers, pattern, 0.5)


def test_torch_and_progress():
    seen = []
    layers = {name: torch.from_numpy(layer) for name, layer in LAYERS.items()}
    result = ms.allocate(layers, "50%", "50%", on_progress=lambda *step: seen.append(step))
    assert result.patterns == ms.allocate(LAYERS, "50%", "50%").patterns
    assert seen == [(1, 3), (2, 3), (3, 3)] * 2


@pytest.mark.parametrize(
    ("pattern", "budget", "words"),
    [
        ("30%", ms.Budget("50%"), "30% contradicts the budget 50%"),
        ("50%", ms.Budget("50%", {"none*": 0.1}), r"floor 'none\*' matches no layer; there are [^.]*$"),
        ("50%", ms.Budget("50%", {"*": "60%"}), "need"),
        ("0.01%", ms.Budget("0.01%"), "rounds to none"),
        ("2:4", ms.Budget("5%"), "need"),
        ("block 4x4 50% balance rows", ms.Budget("50%"), "leave the balance out"),
        ("channels 50%", ms.Budget("50%"), "nothing else"),
        ("64:2:8", ms.Budget("50%"), "nothing else"),
    ],
)
def test_budgets_that_cannot_be_met_are_refused_by_name(pattern, budget, words):
    with pytest.raises(ms.PatternError, match=words):
        ms.allocate(LAYERS, pattern, budget)


@pytest.mark.parametrize(
    ("density", "floors", "words"),
    [
        ("half", [], "'half' is not a share"),
        ("0%", [], r"not in \[1e-09, 1\]"),
        ("120%", [], r"not in \[1e-09, 1\]"),
        ("50%", ["*.query*"], "expected GLOB=SHARE%"),
        ("50%", ["*=10"], "'10' is not a share"),
        ("50%", ["a=10%", "a=20%"], "two floors"),
    ],
)
def test_budgets_that_are_none(density, floors, words):
    with pytest.raises(ms.PatternError, match=words):
        ms.Budget.parse(density, floors)


def test_a_bad_score_is_named_with_its_place(monkeypatch):
    monkeypatch.setattr(allocation, "SLICE_ENTRIES", 32)
    bad = LAYERS | {"small": LAYERS["small"].copy()}
    bad["small"][5, 3] = np.nan
    for pattern in ("50%", "2:4", "block 4x4 50%", "transposable 2:4"):
        with pytest.raises(ms.ScoresError, match=r"'small': NaN at \[5, 3\]"):
            ms.allocate(bad, pattern, "50%")


def test_tied_tensors_are_solved_once():
    weight = LAYERS["large"]
    result = ms.solve_many({"a": weight, "b": weight, "c": weight.copy(), "d": weight + 1}, "2:4")
    assert result["a"] is result["b"] is result["c"]
    assert result["d"] is not result["a"]
    mixed = ms.solve_many({"a": weight, "b": weight}, {"a": "2:4", "b": "50%"})
    assert mixed["a"] is not mixed["b"]
    assert str(mixed["b"].pattern) == "50%"
    with pytest.raises(ms.PatternError, match="no pattern for 'b'"):
        ms.solve_many({"a": weight, "b": weight}, {"a": "2:4"})


def test_floors_may_be_names_with_the_signs_of_globs():
    budget = ms.Budget("50%", {"[odd]": "75%", "w[12]": "20%"})
    assert [budget.floor_of(name) for name in ("[odd]", "o", "w1", "w[12]", "w3")] == [0.75, 0.75, 0.2, 0.2, 0.0]
    budget.check({"[odd]": (8, 8), "w1": (32, 32)}, ms.parse("50%"))
    with pytest.raises(ms.PatternError, match=r"floor 'w\[12\]' matches no layer"):
        budget.check({"[odd]": (8, 8), "w3": (8, 8)}, ms.parse("50%"))


def test_equal_budgets_have_equal_hashes():
    one, other = (ms.Budget("50%", dict(floors)) for floors in ([("a", 0.2), ("b", 0.1)], [("b", 0.1), ("a", 0.2)]))
    assert one == other
    assert len({one, other, ms.Budget(0.5)}) == 2
