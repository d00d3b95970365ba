"""Unstructured: against a stable sort; ties, zeros, dtypes, many panels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

import masksmith as ms
from masksmith.whole_tensor import passes

RNG = np.random.default_rng(5)


def by_sorting(scores: np.ndarray, keep: int) -> np.ndarray:
    """The definition: the largest, and of equal ones those that come first."""
    flat = np.asarray(scores, np.float64).reshape(-1)
    mask = np.zeros(flat.size, bool)
    mask[np.argsort(-flat, kind="stable")[:keep]] = True
    return mask.reshape(scores.shape)


@settings(deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements=st.one_of(st.sampled_from([0.0, -0.0, 1.0, 2.0]), st.floats(0, 2.0**99, width=32)),
    ),
    st.floats(0.05, 1),
)
def test_the_mask_is_that_of_a_stable_sort_and_proved(scores: np.ndarray, density: float) -> None:
    pattern = ms.Unstructured(density)
    try:
        keep = pattern.kept(scores.shape)
    except ms.PatternError:
        return
    solution = ms.solve(scores, pattern)
    assert (solution.mask == by_sorting(scores, keep)).all()
    assert (solution.status, solution.gap, solution.kept) == ("optimal", 0.0, keep)
    assert ms.verify(solution.mask, pattern)


@pytest.mark.parametrize("text", ["50%", "10%", "0.3%", "99.9%", "100%"])
@pytest.mark.parametrize("kind", ["gauss", "ties", "zeros", "tiny"])
def test_thresholds_hold_across_panels(monkeypatch: pytest.MonkeyPatch, text: str, kind: str) -> None:
    monkeypatch.setattr(passes, "PANEL_ENTRIES", 1000)
    scores = np.abs(RNG.standard_normal((97, 130)))
    scores = {
        "gauss": scores,
        "ties": np.round(scores),
        "zeros": scores * (scores > 2),
        "tiny": scores * 1e-310,
    }[kind].astype(np.float32 if kind != "tiny" else np.float64)
    solution = ms.solve(scores, text)
    assert (solution.mask == by_sorting(scores, ms.parse(text).kept(scores.shape))).all()
    assert solution.status == "optimal"
    assert solution.objective == pytest.approx(scores[solution.mask].sum(dtype=np.float64))
    assert solution.retained == pytest.approx(solution.objective / scores.sum(dtype=np.float64))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "uint8", "float64"])
def test_every_dtype_and_library(dtype: str) -> None:
    scores = torch.arange(60).reshape(6, 10).to(getattr(torch, dtype))
    solution = ms.solve(scores, "25%")
    assert isinstance(solution.mask, torch.Tensor)
    assert (solution.mask.numpy() == by_sorting(scores.float().numpy(), 15)).all()


def test_convolutions_count_as_a_whole() -> None:
    scores = np.abs(RNG.standard_normal((8, 6, 3, 3)))
    solution = ms.solve(scores, "30%")
    assert solution.mask.shape == scores.shape
    assert scores[solution.mask].min() >= scores[~solution.mask].max()
    assert ms.verify(solution.mask, "30%")


def test_densities_round_exactly_and_never_to_nothing() -> None:
    assert ms.Unstructured(0.29).kept((10, 10)) == 29  # 0.29 * 100 is 28.999999999999996
    assert ms.Unstructured(0.5).kept((3, 3)) == 5
    with pytest.raises(ms.PatternError, match="10% of 4 entries rounds to none"):
        ms.solve(np.ones((2, 2)), "10%")


def test_a_mask_with_another_count_is_refused() -> None:
    mask = np.zeros((4, 4), bool)
    mask[:2] = True
    assert ms.verify(mask, "50%")
    mask[3, 3] = True
    verdict = ms.verify(mask, "50%")
    assert not verdict
    assert "9 entries are kept instead of 8" in verdict.message


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_bad_scores_are_named_with_their_place(bad: float) -> None:
    scores = np.ones((30, 30), np.float32)
    scores[20, 7] = bad
    with pytest.raises(ms.ScoresError, match=r"'layer'.*\[20, 7\]"):
        ms.solve(scores, "50%", name="layer")


def test_options_of_tiles_are_refused_by_name() -> None:
    scores = np.ones((4, 4))
    for option in ("must_keep", "must_drop", "warm_start"):
        with pytest.raises(ms.SolverError, match=option):
            ms.solve(scores, "50%", **{option: scores > 0})
    with pytest.raises(ms.SolverError, match="keep_duals"):
        ms.solve(scores, "50%", keep_duals=True)
    with pytest.raises(ms.SolverError, match="sinkhorn does not solve 50%"):
        ms.solve(scores, "50%", "sinkhorn")
    assert ms.solve(scores, "50%", "top-k").status == "optimal"


def test_many_tensors_have_a_threshold_each() -> None:
    seen: list[tuple[int, int]] = []
    tensors = {"a": RNG.random((4, 8)), "b": 100 * RNG.random((8, 8))}
    solutions = ms.solve_many(tensors, "25%", on_progress=lambda done, total: seen.append((done, total)))
    assert {name: solution.kept for name, solution in solutions.items()} == {"a": 8, "b": 16}
    assert seen[-1] == (5, 5)


@pytest.mark.parametrize("density", [0, -0.1, 1.5, float("nan"), "half", True, 1e-12])
def test_shares_that_are_none_are_refused(density: object) -> None:
    with pytest.raises(ms.PatternError, match="density"):
        ms.Unstructured(density)  # type: ignore[arg-type]


@given(st.floats(1e-9, 1))
def test_every_density_round_trips(density: float) -> None:
    pattern = ms.Unstructured(density)
    assert ms.parse(str(pattern)) == pattern
