"""V:N:M: against every choice of columns, tried one by one."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import masksmith as ms
from masksmith.whole_tensor import vnm

RNG = np.random.default_rng(11)


def best(panel: np.ndarray, n: int) -> float:
    """The optimum of one panel."""
    choices = combinations(range(panel.shape[1]), 4)
    return max(np.sort(panel[:, list(chosen)], axis=1)[:, 4 - n :].sum() for chosen in choices)


def panels(scores: np.ndarray, v: int, m: int) -> list[np.ndarray]:
    """Cut into panels, zero-padded."""
    rows, cols = scores.shape
    padded = np.zeros((-(-rows // v) * v, -(-cols // m) * m))
    padded[:rows, :cols] = scores
    return [padded[i : i + v, j : j + m] for i in range(0, padded.shape[0], v) for j in range(0, padded.shape[1], m)]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 4),
    st.sampled_from([4, 5, 8, 11]),
    st.tuples(st.integers(1, 20), st.integers(1, 30)),
    st.sampled_from(["gauss", "ties", "zeros", "wide", "heavy"]),
    st.integers(0, 2**32),
)
def test_the_optimum_is_that_of_enumeration(
    v: int, n: int, m: int, shape: tuple[int, int], kind: str, seed: int
) -> None:
    scores = np.abs(np.random.default_rng(seed).standard_normal(shape))
    scores = {
        "gauss": scores.astype(np.float32),
        "ties": np.round(scores).astype(np.float32),
        "zeros": scores * (scores > 1.5),
        "wide": 2.0 ** (60 * scores),
        "heavy": np.exp(3 * scores).astype(np.float32),
    }[kind]
    solution = ms.solve(scores, ms.VNM(v, n, m))
    assert solution.objective == pytest.approx(sum(best(panel, n) for panel in panels(scores, v, m)), rel=1e-12)
    assert solution.objective == pytest.approx(scores[solution.mask].sum(dtype=np.float64), rel=1e-12)
    assert solution.gap < 1e-11
    assert kind in ("wide", "zeros") or solution.status == "optimal"
    assert ms.verify(solution.mask, f"{v}:{n}:{m}")


@pytest.mark.parametrize(("n", "m"), [(1, 20), (2, 20), (3, 17), (4, 24), (2, 32)])
@pytest.mark.parametrize("kind", ["gauss", "ties"])
def test_wide_panels_are_proved_too(n: int, m: int, kind: str) -> None:
    scores = np.abs(RNG.standard_normal((8, m))).astype(np.float32)
    scores = np.round(scores) if kind == "ties" else scores
    solution = ms.solve(scores, ms.VNM(8, n, m))
    assert solution.objective == pytest.approx(best(scores.astype(np.float64), n), rel=1e-12)
    assert (solution.status, solution.stats["solver"]) == ("optimal", "branch-and-bound")


def test_a_search_cut_short_says_how_far_it_may_be_off(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.abs(RNG.standard_normal((64, 96))).astype(np.float32)
    optimum = ms.solve(scores, "16:2:32").objective
    late = ms.solve(scores, "16:2:32", time_limit_s=0)
    assert late.status == "time_limit"
    monkeypatch.setattr(vnm, "MAX_SCORED", 5)
    few = ms.solve(scores, "16:2:32")
    assert few.status == "feasible"
    for found in (late, few):
        assert found.objective <= optimum <= found.upper_bound
        assert 0 < found.gap < 0.2
        assert ms.verify(found.mask, "16:2:32")


def test_ragged_edges_are_kept_whole_or_refused() -> None:
    scores = np.abs(RNG.standard_normal((21, 19)))
    pattern = ms.VNM(8, 2, 8, ragged="dense")
    solution = ms.solve(scores, pattern)
    assert solution.mask[16:].all()
    assert solution.mask[:, 16:].all()
    assert (solution.mask[:16, :16] == ms.solve(scores[:16, :16], "8:2:8").mask).all()
    assert solution.objective == pytest.approx(scores[solution.mask].sum())
    assert solution.tile_objectives.shape == (2, 2)
    assert ms.verify(solution.mask, pattern)
    broken = solution.mask.copy()
    broken[20, 0] = False
    assert ms.verify(broken, pattern).tile == (2, 0)
    with pytest.raises(ms.PatternError, match="do not cover a 21x19 matrix"):
        ms.solve(scores, ms.VNM(8, 2, 8, ragged="error"))


@pytest.mark.parametrize("width", [1, 2, 4, 5])
def test_the_verifier_knows_which_crops_padding_completes(width: int) -> None:
    pattern = ms.VNM(2, 2, 5)
    rows = [np.array(row, bool) for row in product((0, 1), repeat=5) if sum(row) == 2]
    pairs = [np.array(pair) for pair in product(rows, rows)]
    allowed = {mask[:, :width].tobytes() for mask in pairs if mask.any(axis=0).sum() <= 4}
    for bits in product((0, 1), repeat=2 * width):
        mask = np.array(bits, bool).reshape(2, width)
        assert bool(ms.verify(mask, pattern)) == (mask.tobytes() in allowed)


def test_the_verifier_names_the_first_broken_panel() -> None:
    mask = ms.solve(RNG.random((8, 16)), "4:2:8").mask
    mask[5, 8:] = [1, 1, 0, 0, 0, 0, 0, 1]
    verdict = ms.verify(mask, "4:2:8")
    assert (verdict.ok, verdict.tile, verdict.broken, verdict.tiles) == (False, (1, 1), 1, 4)


def test_threads_and_many_tensors_change_nothing() -> None:
    scores = np.abs(RNG.standard_normal((64, 64)))
    seen: list[tuple[int, int]] = []
    one = ms.solve(scores, "8:2:16", threads=1, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(k, 8) for k in range(1, 9)]
    assert (ms.solve_many({"a": scores}, "8:2:16", threads=3)["a"].mask == one.mask).all()
    with pytest.raises(ms.ScoresError, match=r"NaN at \[9, 3\]"):
        ms.solve(np.where(np.arange(4096).reshape(64, 64) == 9 * 64 + 3, np.nan, scores), "8:2:16")


@pytest.mark.parametrize(
    ("text", "word"), [("0:2:8", "v, the rows"), ("8:5:8", "1 to 4"), ("8:0:8", "1 to 4"), ("8:2:3", "m, the columns")]
)
def test_malformed_patterns_are_named(text: str, word: str) -> None:
    with pytest.raises(ms.PatternError, match=word):
        ms.parse(text)


def test_string_form_round_trips() -> None:
    assert str(ms.VNM(64, 2, 8)) == "64:2:8"
    assert ms.parse("64:2:8") == ms.VNM(64, 2, 8)
    assert ms.VNM(64, 2, 8).density == 0.25
    with pytest.raises(ms.PatternError, match="axis"):
        ms.parse("64:2:8", axis="out")


def test_sums_that_overflow_are_refused() -> None:
    with pytest.raises(ms.ScoresError, match="exceeds float64"):
        ms.solve(np.full((8, 8), 1e307), "8:2:8")
