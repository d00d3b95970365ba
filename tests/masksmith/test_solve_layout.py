"""Stacked and transposed tensors: each matrix is solved as it is alone, and the proof is that of all of them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import masksmith as ms
from masksmith._solution.matrices import Matrices
from masksmith.layouts import Layout
from masksmith.measures import count
from masksmith.scores import by_layout

PATTERNS = [
    "2:4",
    "<=2:4",
    "transposable 2:4",
    "transposable 1:4",
    "block 4x4 50%",
    "8:2:8",
    "channels 50%",
    "25%",
    "hybrid 4x4 2:4 50%",
]
AXES = ["in out", "stack in out", "stack out in", "out in kernel", "in out kernel", "stack out in kernel"]
LENGTHS = {"stack": 3, "out": 10, "in": 14, "kernel": 2}


def scores_of(axes, seed=0, **lengths):
    shape = [(LENGTHS | lengths)[word] for word in axes.split()]
    return np.abs(np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def solve_apart(scores, pattern, layout):
    return [ms.solve(np.ascontiguousarray(matrix), pattern) for matrix in layout.matrices(scores)]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("axes", AXES)
def test_each_matrix_is_solved_on_its_own(pattern, axes):
    scores, layout = scores_of(axes), Layout.parse(axes)
    solution, apart = ms.solve(scores, pattern, layout=axes), solve_apart(scores, pattern, layout)
    assert solution.mask.shape == scores.shape
    for mask, other in zip(layout.matrices(solution.mask), apart, strict=True):
        assert np.array_equal(mask, other.mask)
    assert solution.objective == pytest.approx(math.fsum(other.objective for other in apart), rel=1e-12)
    assert solution.kept == sum(other.kept for other in apart)
    assert solution.stats["tiles"] == sum(other.stats["tiles"] for other in apart)
    assert solution.status == "optimal"
    assert ms.verify(solution.mask, pattern, layout=axes)


@pytest.mark.parametrize("axes", AXES)
def test_torch_tensors_give_the_masks_of_numpy_arrays(axes):
    scores = scores_of(axes)
    mask = ms.solve(torch.from_numpy(scores), "transposable 2:4", layout=axes).mask
    assert isinstance(mask, torch.Tensor)
    assert np.array_equal(mask.numpy(), ms.solve(scores, "transposable 2:4", layout=axes).mask)


@given(
    st.sampled_from(AXES[:3]),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from(["pad", "dense"]),
    st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_odd_shapes_are_padded_matrix_by_matrix(axes, rows, cols, ragged, seed):
    scores, layout = scores_of(axes, seed, **{"out": rows, "in": cols}), Layout.parse(axes)
    pattern = ms.parse("transposable 2:4", ragged=ragged)
    solution = ms.solve(scores, pattern, layout=layout)
    for mask, other in zip(layout.matrices(solution.mask), solve_apart(scores, pattern, layout), strict=True):
        assert np.array_equal(mask, other.mask)
    assert ms.verify(solution.mask, pattern, layout=layout)


def test_forced_entries_and_warm_starts_are_cut_as_the_scores_are():
    scores = scores_of("stack in out")
    keep = np.zeros(scores.shape, bool)
    keep[2, 5, 3] = True
    solution = ms.solve(scores, "transposable 2:4", layout="stack in out", must_keep=keep, keep_duals=True)
    assert solution.mask[2, 5, 3]
    again = ms.solve(scores, "transposable 2:4", layout="stack in out", must_keep=keep, warm_start=solution)
    assert again.objective == solution.objective
    other = ms.solve(scores, "transposable 2:4", layout="stack in out", warm_start=~solution.mask, hysteresis=100.0)
    assert not (other.mask & solution.mask).any() or other.objective > solution.objective


def test_duals_prove_each_matrix_on_its_own():
    scores = scores_of("stack in out")
    solution = ms.solve(scores, "transposable 2:4", layout="stack in out", keep_duals=True)
    assert solution.duals is not None
    rows, cols = solution.duals
    assert rows.shape == (*solution.tile_objectives.shape, 4) == cols.shape


@pytest.mark.parametrize("shape", [(1, 4), (4,), (4, 8)])
@pytest.mark.parametrize("layout", [None, "in out"])
def test_a_weight_of_another_shape_is_refused(shape, layout):
    with pytest.raises(ms.ScoresError, match=r"the weight's shape \[.*\] differs from the scores' \[8, 4\]"):
        ms.solve(np.ones((8, 4)), "2:4", layout=layout, weight=np.ones(shape))


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ms.ScoresError, match=r"'must_keep': shape \[4, 4\] differs"):
        ms.solve(scores_of("in out"), "2:4", layout="in out", must_keep=np.ones((4, 4), bool))


@pytest.mark.parametrize("pattern", ["2:4", "transposable 2:4", "4:2:8", "block 4x4 50%", "50%"])
@pytest.mark.parametrize(
    ("axes", "parts", "shape"),
    [
        ("stack out in", (), (2, 8, 16)), ("stack in out", (6, 6), (2, 16, 12)), ("in out", (), (8, 16)),
        ("in out", (6, 10), (8, 16)), ("stack stack in out", (), (2, 2, 8, 8)), ("out stack in", (), (8, 3, 8)),
        ("in out kernel", (), (8, 4, 2)),
    ],
)  # fmt: skip
def test_the_index_of_an_invalid_score_is_that_in_the_tensor(pattern, axes, parts, shape):
    layout, index = Layout.parse(axes, out_parts=parts), tuple(length * 2 // 3 for length in shape)
    scores = np.ones(shape)
    scores[index] = np.nan
    for solve in (
        lambda: ms.solve(scores, pattern, layout=layout, name="experts"),
        lambda: ms.solve_many({"q": np.ones((8, 8)), "experts": scores}, pattern, layout={"experts": layout}),
    ):
        with pytest.raises(ms.ScoresError, match="'experts': NaN at") as caught:
            solve()
        assert caught.value.index == index


def test_a_cut_search_of_one_matrix_leaves_the_whole_unproved():
    solution = ms.solve(scores_of("stack out in"), "transposable 2:4", layout="stack out in", time_limit_s=1e-9)
    assert solution.status == "time_limit"
    assert (
        solution.upper_bound >= ms.solve(scores_of("stack out in"), "transposable 2:4", layout="stack out in").objective
    )


def test_many_tensors_have_layouts_by_name():
    scores = {"experts": scores_of("stack in out"), "q": scores_of("out in")}
    solutions = ms.solve_many(scores, "2:4", layout={"experts": "stack in out"})
    assert np.array_equal(solutions["experts"].mask, ms.solve(scores["experts"], "2:4", layout="stack in out").mask)
    assert np.array_equal(solutions["q"].mask, ms.solve(scores["q"], "2:4").mask)


def test_equal_tensors_of_different_layouts_are_not_tied():
    scores = scores_of("out in", **{"out": 12, "in": 12})
    solutions = ms.solve_many({"a": scores, "b": scores}, "2:4", layout={"b": "in out"})
    assert np.array_equal(solutions["b"].mask.T, ms.solve(scores.T.copy(), "2:4").mask)


def test_the_pruned_weight_is_stored_as_the_weight_is():
    scores = scores_of("stack in out")
    solution = ms.solve(scores, "2:4", layout="stack in out", weight=-scores)
    assert np.array_equal(solution.pruned, np.where(solution.mask, -scores, np.float32(0)))


def test_fused_parts_obey_the_pattern_when_they_are_split():
    scores = scores_of("out in", **{"out": 18, "in": 8})
    layout = Layout.parse("out in", out_parts=(6, 6, 6))
    mask = ms.solve(scores, "transposable 2:4", layout=layout).mask
    assert all(ms.verify(mask[first : first + 6], "transposable 2:4") for first in (0, 6, 12))
    assert ms.verify(mask, "transposable 2:4", layout=layout)
    assert not ms.verify(ms.solve(scores, "transposable 2:4").mask, "transposable 2:4", layout=layout)


@pytest.mark.parametrize("axes", ["out in", "stack in out"])
@pytest.mark.parametrize("ragged", ["pad", "dense"])
def test_fused_parts_of_unequal_size_may_have_groups_along_out(axes, ragged):
    scores = scores_of(axes, **{"out": 24, "in": 8})
    layout, pattern = Layout.parse(axes, out_parts=(6, 6, 12)), ms.parse("2:4", axis="out", ragged=ragged)
    options = {"layout": layout, "keep_duals": True}
    solution = ms.solve(scores, pattern, **options)
    parts = [part for matrix in layout.matrices(scores) for part in (matrix[:6], matrix[6:12], matrix[12:])]
    alone = [ms.solve(part, pattern, keep_duals=True) for part in parts]
    assert solution.objective == pytest.approx(sum(part.objective for part in alone))
    assert solution.kept == sum(part.kept for part in alone)
    assert solution.stats["tiles"] == sum(part.stats["tiles"] for part in alone)
    assert ms.verify(solution.mask, pattern, layout=layout)
    split = Matrices(layout, pattern, scores.shape).split_solution(solution)
    for one, other in zip(split, alone, strict=True):
        assert np.array_equal(one.mask, other.mask)
        assert one.duals is not None
        assert np.array_equal(one.duals[0], other.duals[0])
        assert np.array_equal(one.tile_objectives, other.tile_objectives)
    again = ms.solve(scores, pattern, warm_start=solution, hysteresis=1.0, **options)
    assert np.array_equal(again.mask, solution.mask)


def test_the_verdict_names_the_matrix():
    mask = ms.solve(scores_of("stack out in"), "2:4", layout="stack out in").mask
    mask[2, 0, :4] = True
    verdict = ms.verify(mask, "2:4", layout="stack out in")
    assert not verdict
    assert (verdict.matrix, verdict.tile) == (2, (0, 0))
    assert verdict.message.startswith("matrix 2 of 3: ")


def test_a_stack_without_matrices_is_refused_by_its_shape():
    layout, empty = Layout.parse("stack out in"), np.zeros((0, 4, 4), np.float32)
    for call in (
        lambda: ms.solve(empty, "2:4", layout=layout),
        lambda: ms.solve_many({"a": empty}, "2:4", layout={"a": layout}),
        lambda: ms.verify(empty != 0, "2:4", layout=layout),
        lambda: by_layout(layout, "magnitude", empty),
        lambda: count(empty != 0, layout=layout),
    ):
        with pytest.raises(ms.PatternError, match=r"shape \[0, 4, 4\] is empty: dimension 0 is 0"):
            call()
