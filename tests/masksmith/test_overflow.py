"""Finite scores whose sum float64 does not hold are refused, and named, whatever solves them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import masksmith as ms
from masksmith._engine import panel_store

RNG = np.random.default_rng(0)
HUGE = 1e308 * RNG.random((64, 64))
T24 = "transposable 2:4"
MESSAGE = r"'wide': the sum of the scores exceeds float64; scale them down"
PATTERNS = [
    "2:4", "<=2:4", T24, "transposable <=8:16", "transposable 4:8 x 2:4", "double 2:4", "16:2:8", "50%",
    "channels in 50%", "channels out 50%", "block 4x4 50%", "block 4x4 50% balance rows", "block 4x4 50% balance both",
    "block 4x4 50% norm max", "block 8x8 50% nested 2:4", "hybrid 8x8 2:4 50%",
]  # fmt: skip


def across_panels(largest: float, rows: int = 64) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Scores of which every panel has a finite sum, but not all together: one large score every 16 rows."""
    scores = RNG.random((rows, 64))
    scores[::16, 0] = largest
    return scores


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_refuses_it(pattern: str) -> None:
    with pytest.raises(ms.ScoresError, match=MESSAGE):
        ms.solve(HUGE, pattern, name="wide")


@pytest.mark.parametrize(
    "solver",
    [
        "exact",
        pytest.param("greedy", marks=pytest.mark.torch),
        pytest.param("sinkhorn", marks=pytest.mark.torch),
        "min-cost-flow",
        "enumerate",
    ],
)
def test_every_solver_refuses_it(solver: str) -> None:
    with pytest.raises(ms.ScoresError, match=MESSAGE):
        ms.solve(HUGE, T24, solver, name="wide")


@pytest.mark.parametrize("pattern", ["2:4", T24])
@pytest.mark.parametrize("ragged", ["pad", "dense"])
def test_sums_of_panels_that_overflow_together_are_refused(
    pattern: str, ragged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panel_store, "PANEL_ENTRIES", 64 * 16)
    with pytest.raises(ms.ScoresError, match=MESSAGE):
        ms.solve(across_panels(1e308), ms.parse(pattern, ragged=ragged), name="wide")


def test_a_total_that_overflows_is_refused_even_where_the_kept_score_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panel_store, "PANEL_ENTRIES", 64 * 16)
    scores = RNG.random((64, 64))
    scores[::16, :4] = 4e307
    solution = ms.solve(scores[:16], "1:4")
    assert np.isfinite(solution.total_score)
    with pytest.raises(ms.ScoresError, match=MESSAGE):
        ms.solve(scores, "1:4", name="wide")


def test_solve_many_names_the_tensor() -> None:
    tensors = {"narrow": HUGE * 1e-300, "wide": HUGE}
    for pattern in (T24, "2:4", "block 4x4 50%", {"narrow": "2:4", "wide": "50%"}):
        with pytest.raises(ms.ScoresError, match=MESSAGE):
            ms.solve_many(tensors, pattern)


@pytest.mark.parametrize("bonus", [1e308, 1.79e308])
def test_a_bonus_may_not_overflow_either(bonus: float) -> None:
    scores = 1e306 * RNG.random((8, 8))
    start = ms.solve(scores, T24)
    with pytest.raises(ms.ScoresError, match=MESSAGE):
        ms.solve(scores, T24, warm_start=start, hysteresis=bonus, name="wide")


@pytest.mark.parametrize("pattern", [*PATTERNS, "block 4x4 50% norm mean"])
def test_what_float64_holds_is_solved_and_proved_as_ever(pattern: str) -> None:
    scores = RNG.random((64, 64))
    large = np.ldexp(scores, 1010)
    solution, usual = ms.solve(large, pattern), ms.solve(scores, pattern)
    np.testing.assert_array_equal(solution.mask, usual.mask)
    assert solution.status is usual.status
    assert solution.objective == np.ldexp(usual.objective, 1010)
    assert solution.upper_bound == np.ldexp(usual.upper_bound, 1010)


def test_a_bound_that_overflows_is_refused() -> None:
    """A poor mask whose objective float64 holds, but not what its duals allow beyond it."""

    class Poor(ms.MinCostFlow):
        def __call__(self, panel: ms.Panel) -> ms.PanelAnswer:
            answer = super().__call__(panel)
            return ms.PanelAnswer(answer.mask, np.full_like(answer.row_duals, 1e307), answer.col_duals)

    scores = np.ldexp(RNG.random((64, 64)), 1010)
    with pytest.raises(ms.ScoresError, match="exceeds float64"):
        ms.solve(scores, T24, Poor())


@pytest.mark.parametrize("pattern", ["2:4", T24])
def test_budgets_of_models_are_refused_too(pattern: str) -> None:
    layers = {"a": across_panels(1e308, 16), "b": across_panels(1e308, 16)}
    with pytest.raises(ms.ScoresError, match="the sum of the scores exceeds float64"):
        ms.allocate(layers, pattern, 0.5)
