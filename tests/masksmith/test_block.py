"""Blocks: against enumeration and HiGHS; balances, norms, ragged edges."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.optimize import linprog

import masksmith as ms
from masksmith.whole_tensor import block_flow, passes

RNG = np.random.default_rng(7)
NORMS = {
    "l1": lambda block: block.sum(),
    "l2": lambda block: np.sqrt((block**2).sum()),
    "max": lambda block: block.max(),
    "mean": lambda block: block.mean(),
}


def worths(scores: np.ndarray, rows: int, cols: int, norm: str) -> np.ndarray:
    tops, lefts = range(0, scores.shape[0], rows), range(0, scores.shape[1], cols)
    return np.array([[NORMS[norm](scores[i : i + rows, j : j + cols]) for j in lefts] for i in tops])


def budgets(total: int, parts: int) -> list[int]:
    return [total // parts + (part < total % parts) for part in range(parts)]


def best(worth: np.ndarray, density: float, balance: str) -> float:
    """The optimum, by trying every choice of blocks."""
    total = int(density * worth.size + 0.5)
    masks = []
    for chosen in combinations(range(worth.size), total):
        mask = np.zeros(worth.size, bool)
        mask[list(chosen)] = True
        mask = mask.reshape(worth.shape)
        rows, cols = (budgets(total, length) for length in worth.shape)
        if balance in ("rows", "both") and list(mask.sum(1)) != rows:
            continue
        if balance in ("cols", "both") and list(mask.sum(0)) != cols:
            continue
        masks.append(worth[mask].sum())
    return max(masks)


def by_highs(worth: np.ndarray, total: int) -> float:
    """The optimum with both balances, as a linear program (its matrix is totally unimodular)."""
    down, across = worth.shape
    rows = np.kron(np.eye(down), np.ones(across))
    cols = np.kron(np.ones(down), np.eye(across))
    expected = budgets(total, down) + budgets(total, across)
    scale = worth.max() or 1.0
    answer = linprog(
        -worth.reshape(-1) / scale, A_eq=np.vstack([rows, cols]), b_eq=expected, bounds=(0, 1), method="highs"
    )
    return -answer.fun * scale


@pytest.mark.parametrize("balance", ["none", "rows", "cols", "both"])
@pytest.mark.parametrize("norm", list(NORMS))
@pytest.mark.parametrize("kind", ["gauss", "ties", "zeros"])
def test_the_optimum_is_that_of_enumeration(balance: str, norm: str, kind: str) -> None:
    scores = np.abs(RNG.standard_normal((6, 11)))
    scores = {"gauss": scores, "ties": np.round(scores), "zeros": scores * (scores > 1.5)}[kind].astype(np.float32)
    pattern = ms.Block(2, 3, 0.4, balance, norm)
    solution = ms.solve(scores, pattern)
    worth = worths(scores.astype(np.float64), 2, 3, norm)
    assert solution.objective == pytest.approx(best(worth, 0.4, balance), rel=1e-12)
    assert (solution.status, solution.gap) == ("optimal", 0.0)
    assert ms.verify(solution.mask, pattern)
    assert solution.unshifted_objective == pytest.approx(scores[solution.mask].sum(dtype=np.float64))
    assert solution.tile_objectives.shape == {"rows": (3, 1), "cols": (1, 4)}.get(balance, (1, 1))


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.floats(0.05, 1),
    st.integers(0, 2**32),
    st.sampled_from(["gauss", "ties", "wide"]),
)
def test_both_balances_reach_the_linear_programs_optimum(
    grid: tuple[int, int], density: float, seed: int, kind: str
) -> None:
    rng = np.random.default_rng(seed)
    scores = np.abs(rng.standard_normal(grid))
    scores = {"gauss": scores, "ties": np.round(2 * scores), "wide": 2.0 ** (20 * scores)}[kind]
    pattern = ms.Block(1, 1, density, "both")
    try:
        total = pattern.budgets(pattern.grid(grid))[2]
    except ms.PatternError:
        return
    solution = ms.solve(scores, pattern)
    assert solution.objective == pytest.approx(by_highs(scores, total), rel=1e-6, abs=1e-6 * scores.max())
    assert solution.gap < 1e-9
    assert kind == "wide" or solution.status == "optimal"  # wide: beyond 62 bits scores are rounded
    assert ms.verify(solution.mask, pattern)


@pytest.mark.parametrize("balance", ["none", "rows", "cols", "both"])
@pytest.mark.parametrize("ragged", ["pad", "dense"])
def test_ragged_edges(monkeypatch: pytest.MonkeyPatch, balance: str, ragged: str) -> None:
    monkeypatch.setattr(passes, "PANEL_ENTRIES", 200)
    scores = np.abs(RNG.standard_normal((50, 37)))
    pattern = ms.Block(8, 5, 0.4, balance, ragged=ragged)
    solution = ms.solve(scores, pattern)
    assert solution.status == "optimal"
    assert ms.verify(solution.mask, pattern)
    assert solution.objective == pytest.approx(scores[solution.mask].sum())
    assert solution.density == pytest.approx(solution.mask.mean())
    if ragged == "dense":
        assert solution.mask[48:].all()
        assert solution.mask[:, 35:].all()
        whole = ms.solve(scores[:48, :35], ms.Block(8, 5, 0.4, balance))
        assert (solution.mask[:48, :35] == whole.mask).all()


def test_ties_go_to_the_first_block() -> None:
    mask = ms.solve(np.ones((8, 8), np.float32), "block 4x4 50%").mask
    assert mask[:4].all()
    assert not mask[4:].any()


def test_a_large_grid_is_proved_optimal_both_ways() -> None:
    worth = np.abs(RNG.standard_normal((256, 256))).astype(np.float32)
    solution = ms.solve(worth, ms.Block(1, 1, 0.3, "both"))
    assert (solution.status, solution.stats["solver"]) == ("optimal", "min-cost-flow")


def test_prices_that_prove_nothing_leave_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    duals = block_flow.exact_duals
    monkeypatch.setattr(block_flow, "exact_duals", lambda *args: tuple(0 * dual for dual in duals(*args)))
    scores = np.abs(RNG.standard_normal((6, 6)))
    solution = ms.solve(scores, ms.Block(1, 1, 0.5, "both"))
    assert solution.status == "feasible"
    assert solution.upper_bound >= scores.sum() * (1 - 1e-12)


@pytest.mark.parametrize("balance", ["none", "rows", "cols", "both"])
def test_the_verifier_sees_blocks_and_budgets(balance: str) -> None:
    pattern = ms.Block(2, 2, 0.5, balance)
    mask = np.kron(np.eye(2), np.ones((2, 2))).astype(bool).repeat(2, axis=1)[:, [0, 1, 4, 5]]
    assert ms.verify(mask, pattern)
    partly = mask.copy()
    partly[3, 3] = False
    assert "only partly kept, the first is block [1, 1]" in ms.verify(partly, pattern).message
    more = np.ones((4, 4), bool)
    assert "instead of" in ms.verify(more, pattern).message
    moved = np.zeros((4, 4), bool)
    moved[:2] = True
    assert bool(ms.verify(moved, pattern)) == (balance in ("none", "cols"))
    assert bool(ms.verify(moved.T, pattern)) == (balance in ("none", "rows"))


@pytest.mark.parametrize(("balance", "norm"), list(product(["none", "rows", "cols", "both"], NORMS)))
def test_string_form_round_trips(balance: str, norm: str) -> None:
    pattern = ms.Block(16, 128, 0.125, balance, norm)
    assert ms.parse(str(pattern)) == pattern
    if norm == "l1":
        nested = ms.Block(16, 128, 0.125, balance, nested=ms.NM(8, 16, transposable=True))
        assert ms.parse(str(nested)) == nested


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("block 0x4 50%", "sides"),
        ("block 4x9999 50%", "sides"),
        ("block 4x4 0%", "density"),
        ("block 4x4 101%", "density"),
        ("block 4x4", "not a pattern"),
        ("block 4x4 50% balance diagonal", "not a pattern"),
        ("block 4x4 50% norm l3", "not a pattern"),
    ],
)
def test_malformed_blocks_are_named(text: str, word: str) -> None:
    with pytest.raises(ms.PatternError, match=word):
        ms.parse(text)


def test_shapes_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ms.PatternError, match="10% of 4 blocks rounds to none"):
        ms.solve(np.ones((8, 8)), "block 4x4 10%")
    with pytest.raises(ms.PatternError, match="do not cover a 9x8 matrix"):
        ms.solve(np.ones((9, 8)), ms.Block(4, 4, 0.5, ragged="error"))
    with pytest.raises(ms.PatternError, match="no whole block fits"):
        ms.solve(np.ones((3, 8)), ms.Block(4, 4, 0.5, ragged="dense"))
    with pytest.raises(ms.PatternError, match="axis"):
        ms.parse("block 4x4 50%", axis="out")
    with pytest.raises(ms.PatternError, match="balance"):
        ms.Block(4, 4, 0.5, balance="some")  # type: ignore[arg-type]


def test_grids_too_large_for_one_flow_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_flow, "MAX_BLOCKS", 15)
    with pytest.raises(ms.SolverError, match="larger blocks"):
        ms.solve(np.ones((4, 4)), "block 1x1 50% balance both")


@pytest.mark.parametrize("power", [-1022, -600, -530, 600, 1012])
def test_l2_norms_whose_squares_leave_float64_are_exact(power: int) -> None:
    scores = RNG.integers(1, 16, (9, 11)).astype(float)
    scores[:3, :4] = 0.0
    expected, solution = (ms.solve(np.ldexp(scores, shift), "block 3x4 50% norm l2") for shift in (0, power))
    assert np.array_equal(solution.mask, expected.mask)
    assert solution.objective == np.ldexp(expected.objective, power)
    assert solution.status == "optimal"


def test_smaller_l2_norms_are_kept_only_if_no_larger_ones_are_left() -> None:
    scores = np.full((4, 8), 1e-200)
    scores[:, 4:] *= 3
    solution = ms.solve(scores, "block 4x4 50% norm l2")
    assert solution.mask[:, 4:].all()
    assert solution.objective == pytest.approx(12e-200)


@pytest.mark.parametrize("balance", ["none", "rows", "cols", "both"])
@pytest.mark.parametrize("nested", ["2:4", "transposable 1:2", "transposable 2:4 x 1:2"])
@pytest.mark.parametrize("kind", ["gauss", "ties"])
def test_nested_patterns_are_chosen_inside_the_best_blocks(balance: str, nested: str, kind: str) -> None:
    scores = np.abs(RNG.standard_normal((8, 24))).astype(np.float32)
    scores = np.round(scores) if kind == "ties" else scores
    pattern = ms.parse(f"block 4x8 50% balance {balance} nested {nested}")
    solution = ms.solve(scores, pattern)
    worth = [[ms.solve(scores[i : i + 4, j : j + 8], nested).objective for j in (0, 8, 16)] for i in (0, 4)]
    assert solution.objective == pytest.approx(best(np.array(worth), 0.5, balance), rel=1e-12)
    assert solution.objective == pytest.approx(scores[solution.mask].sum(dtype=np.float64))
    assert (solution.status, solution.density, ms.report(solution).fill) == ("optimal", 0.25, 1.0)
    assert ms.verify(solution.mask, pattern)
    inside = tuple(int(places[0]) for places in np.nonzero(solution.mask))
    solution.mask[inside] = False
    assert "1 of 6 blocks violate the pattern" in ms.verify(solution.mask, pattern).message


def test_nested_patterns_leave_dense_edges_alone() -> None:
    scores = np.abs(RNG.standard_normal((3, 11, 9)))[0]
    pattern = ms.Block(4, 4, 0.5, ragged="dense", nested=ms.NM(2, 4))
    solution = ms.solve(scores, pattern)
    assert solution.mask[8:].all()
    assert solution.mask[:, 8:].all()
    assert solution.mask[:8, :8].sum() == 16
    assert ms.verify(solution.mask, pattern)
    for place in ((10, 0), (0, 8)):
        broken = solution.mask.copy()
        broken[place] = False
        assert not ms.verify(broken, pattern)
    with pytest.raises(ms.PatternError, match="ragged='dense'"):
        ms.solve(scores, "block 4x4 50% nested 2:4")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("block 4x6 50% nested 2:4", "do not fill"),
        ("block 4x4 50% nested <=2:4", "exact fill"),
        ("block 4x4 50% norm l2 nested 2:4", "l1 norm"),
        ("block 4x4 50% nested 50%", "only n:m"),
        ("block 4x4 50% nested 5:4", "between 1 and m"),
    ],
)
def test_patterns_that_cannot_be_nested_are_refused(text: str, word: str) -> None:
    with pytest.raises(ms.PatternError, match=word):
        ms.parse(text)


def test_a_dropped_block_of_the_dense_edge_is_not_called_partly_kept():
    pattern = ms.parse("block 4x4 50%", ragged="dense")
    mask = np.array(ms.solve(np.arange(1.0, 91.0).reshape(9, 10), pattern).mask)
    mask[:, 8:] = False
    assert "are only partly kept, or are in the dense edge and not dense" in ms.verify(mask, pattern).message
