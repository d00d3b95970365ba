"""Double pruning: against two stable sorts, and bounded by the best at-most mask."""

from __future__ import annotations

import numpy as np
import pytest

import masksmith as ms
from masksmith.solvers.double_prune import DoublePrune

RNG = np.random.default_rng(13)


def by_sorting(scores: np.ndarray, n: int, m: int) -> np.ndarray:
    """Prune rows, then columns of what is left."""
    mask = np.zeros(scores.shape, bool)
    for turned, before in ((False, np.ones(scores.shape, bool)), (True, mask)):
        keys = np.where(before, scores, -1.0)
        keys, out = (keys.T, np.zeros(scores.shape, bool).T) if turned else (keys, mask)
        for i in range(keys.shape[0]):
            for j in range(0, keys.shape[1], m):
                order = np.argsort(-keys[i, j : j + m], kind="stable")[:n]
                out[i, j + order] = keys[i, j + order] >= 0
        mask = out.T if turned else out
    return mask


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8), (3, 7), (4, 4)])
@pytest.mark.parametrize("kind", ["gauss", "ties", "zeros"])
def test_the_mask_is_that_of_pruning_twice(n: int, m: int, kind: str) -> None:
    scores = np.abs(RNG.standard_normal((5 * m, 9 * m)))
    scores = {"gauss": scores, "ties": np.round(scores), "zeros": scores * (scores > 1)}[kind].astype(np.float32)
    solution = ms.solve(scores, ms.DoublePruned(n, m))
    assert (solution.mask == by_sorting(scores, n, m)).all()
    assert solution.stats["solver"] == "double-prune"
    assert ms.verify(solution.mask, f"double {n}:{m}")
    assert ms.verify(solution.mask, f"transposable <={n}:{m}")


def test_the_bound_is_the_best_mask_of_the_same_set() -> None:
    scores = np.abs(RNG.standard_normal((64, 64))).astype(np.float32)
    twice, best = ms.solve(scores, "double 2:4"), ms.solve(scores, "transposable <=2:4")
    assert best.status == "optimal"
    assert twice.upper_bound == pytest.approx(best.objective, rel=1e-12)
    assert twice.status == "feasible"
    assert 0.01 < twice.gap < 0.2
    assert twice.objective == pytest.approx(scores[twice.mask].sum(dtype=np.float64))


def test_it_can_be_proved_optimal_by_chance() -> None:
    scores = np.kron(np.ones((3, 3)), [[9, 8, 0, 0], [8, 9, 0, 0], [0, 0, 9, 8], [0, 0, 8, 9]]).astype(np.float32)
    solution = ms.solve(scores, "double 2:4")
    assert (solution.status, solution.gap, solution.density) == ("optimal", 0.0, 0.5)


@pytest.mark.parametrize("ragged", ["pad", "dense"])
def test_ragged_edges(ragged: str) -> None:
    scores = np.abs(RNG.standard_normal((10, 13)))
    pattern = ms.DoublePruned(2, 4, ragged=ragged)
    solution = ms.solve(scores, pattern)
    assert ms.verify(solution.mask, pattern)
    assert (solution.mask[:8, :12] == by_sorting(scores[:8, :12], 2, 4)).all()
    with pytest.raises(ms.PatternError, match="do not cover"):
        ms.solve(scores, ms.DoublePruned(2, 4, ragged="error"))


def test_other_solvers_find_better_masks_of_the_same_set() -> None:
    scores = np.abs(RNG.standard_normal((32, 32)))
    assert ms.solve(scores, "double 2:4", "exact").objective > ms.solve(scores, "double 2:4", "auto").objective
    from_many = ms.solve_many({"a": scores}, "double 2:4", threads=1)["a"]
    assert (from_many.mask == ms.solve(scores, "double 2:4", DoublePrune(), threads=2).mask).all()


def test_what_it_cannot_do_is_refused() -> None:
    scores = np.ones((8, 8))
    with pytest.raises(ms.SolverError, match="forced"):
        ms.solve(scores, "double 2:4", must_keep=scores > 1)
    with pytest.raises(ms.SolverError, match="under-filled"):
        ms.solve(scores, "transposable 2:4", DoublePrune())
    with pytest.raises(ms.PatternError, match="between 1 and m"):
        ms.parse("double 5:4")
    with pytest.raises(ms.PatternError, match="axis"):
        ms.parse("double 2:4", axis="out")


def test_string_form_round_trips() -> None:
    assert ms.parse("double 2:4") == ms.DoublePruned(2, 4)
    assert str(ms.DoublePruned(8, 16)) == "double 8:16"
    assert ms.DoublePruned(8, 16).density == 0.5
