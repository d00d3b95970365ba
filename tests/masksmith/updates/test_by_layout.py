"""ADMM of stacked matrices: what it returns is certified by the sums of its own matrices."""

from functools import partial

import numpy as np
import pytest

import masksmith as ms
from masksmith.layouts import Layout
from masksmith.updates import admm_by_layout, by_layout, reconstruct_by_layout

RNG = np.random.default_rng(3)
LAYOUTS = {"stack out in": (3, 8, 16), "stack in out": (3, 16, 8), "in out": (16, 8), "out in": (8, 16)}


def problem(axes: str) -> tuple[Layout, np.ndarray, np.ndarray]:
    layout, shape = Layout.parse(axes), LAYOUTS[axes]
    count = shape[0] if len(shape) == 3 else 1
    inputs = RNG.standard_normal((count, 64, 16)) * np.linspace(0.1, 3.0, 16)
    gram = np.einsum("sti,stj->sij", inputs, inputs)
    return layout, RNG.standard_normal(shape), gram if len(shape) == 3 else gram[0]


@pytest.mark.parametrize("axes", LAYOUTS)
@pytest.mark.parametrize("pattern", ["2:4", "transposable 2:4", "<=2:4"])
@pytest.mark.parametrize("max_rounds", [1, 3, 40])
def test_figures_are_those_of_the_mask(axes: str, pattern: str, max_rounds: int) -> None:
    layout, weight, gram = problem(axes)
    scores = weight**2
    start = ms.solve(scores, pattern, layout=axes)
    update = admm_by_layout(layout, weight, gram, ms.parse(pattern), start=start, max_rounds=max_rounds)
    solution = update.solution
    assert solution.kept == int(np.count_nonzero(np.asarray(solution.mask)))
    assert solution.density <= 0.5
    assert solution.objective <= solution.upper_bound
    assert solution.objective == pytest.approx(solution.tile_objectives.sum(), rel=1e-12)
    if (np.asarray(solution.mask) == np.asarray(start.mask)).all() and update.stats["returned"] == "start":
        assert solution.kept == start.kept


def test_parts_of_a_start_are_certified_apart() -> None:
    layout, weight, _ = problem("stack out in")
    start = ms.solve(weight**2, "2:4", layout="stack out in")
    from masksmith._solution.matrices import Matrices

    parts = Matrices(layout, ms.parse("2:4"), weight.shape).split_solution(start)
    for matrix, part in zip(weight, parts, strict=True):
        alone = ms.solve(matrix**2, "2:4")
        assert (part.objective, part.upper_bound, part.kept) == (alone.objective, alone.upper_bound, alone.kept)
        assert part.total_score == alone.total_score
        np.testing.assert_array_equal(part.tile_objectives, alone.tile_objectives)
    assert sum(part.kept for part in parts) == start.kept


def test_a_start_of_another_layout_is_refused() -> None:
    layout, weight, gram = problem("stack out in")
    start = ms.solve((weight**2).reshape(24, 16), "2:4")
    with pytest.raises(ms.MasksmithError):
        admm_by_layout(layout, weight, gram, ms.parse("2:4"), start=start)


@pytest.mark.parametrize(
    ("axes", "start_axes", "start_pattern"),
    [
        ("in out", None, "transposable 2:4"),  # As many matrices: one.
        ("stack out in", "stack in out", "transposable 2:4"),
        ("in out", "in out", "transposable 1:4"),
    ],
)
def test_a_start_of_other_matrices_is_refused(axes: str, start_axes: str | None, start_pattern: str) -> None:
    layout, weight, gram = problem(axes)
    start = ms.solve(weight**2, start_pattern, layout=start_axes)
    with pytest.raises(ms.UpdateError, match=f"start was not solved with layout='{axes}' and the pattern transposable"):
        admm_by_layout(layout, weight, gram, ms.parse("transposable 2:4"), start=start)


@pytest.mark.parametrize("method", ["reconstruct", "admm"])
def test_a_method_is_called_by_its_name(method: str) -> None:
    layout, weight, gram = problem("stack out in")
    start, pattern = ms.solve(weight**2, "2:4", layout="stack out in"), ms.parse("2:4")
    solution, update = by_layout(layout, method, weight, gram, start, pattern=pattern)
    direct: ms.Update
    if method == "reconstruct":
        direct = reconstruct_by_layout(layout, weight, start.mask, gram)
        assert solution is start
    else:
        direct = admm_by_layout(layout, weight, gram, pattern, start=start)
    np.testing.assert_array_equal(update.weight, direct.weight)
    np.testing.assert_array_equal(solution.mask, direct.mask)


def test_an_unknown_method_is_refused_by_name() -> None:
    layout, weight, gram = problem("out in")
    start = ms.solve(weight**2, "2:4")
    with pytest.raises(ms.UpdateError, match="update 'obs' is not one of: reconstruct, admm"):
        by_layout(layout, "obs", weight, gram, start, pattern=ms.parse("2:4"))


def test_statistics_are_those_of_all_matrices() -> None:
    layout, weight, gram = problem("stack out in")
    gram[0] = 1e-6 * np.eye(16) + np.ones((16, 16))  # inputs that are alike: more rounds, another mask
    update = admm_by_layout(layout, weight, gram, ms.parse("2:4"))
    alone = [ms.admm(matrix, matrix_gram, "2:4") for matrix, matrix_gram in zip(weight, gram, strict=True)]
    assert len({len(one.history) for one in alone}) > 1
    assert update.stats["rounds"] == len(update.history) == max(len(one.history) for one in alone)
    assert update.stats["solves"] == sum(one.solves for one in alone)
    assert update.stats["settled"] == all(one.stats["settled"] for one in alone)
    returned = {one.stats["returned"] for one in alone}
    assert update.stats["returned"] == (returned.pop() if len(returned) == 1 else "mixed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": np.ones((2, 8, 16), bool)}, r"mask has shape \[2, 8, 16\], the weight has \[3, 8, 16\]"),
        ({"mask": np.ones((8, 16), bool)}, r"mask has shape \[8, 16\], the weight has \[3, 8, 16\]"),
        ({"mask": "all"}, "mask: dtype"),
        ({"gram": [[1.0]]}, r"gram has shape \[1, 1\], the weight's layout needs \[3, in, in\]"),
        ({"gram": "one"}, "gram: dtype"),
        ({"weight": [["a"]]}, "dtype"),
        ({"start": np.ones((3, 8, 16), bool)}, "start is a ndarray, not a Solution"),
        ({"start": ms.solve(np.ones((2, 8, 16)), "2:4", layout="stack out in")}, r"start has shape \[2, 8, 16\]"),
    ],
)
def test_operands_that_do_not_fit_are_refused_by_name(change, message) -> None:
    layout, weight, gram = problem("stack out in")
    operands = {"weight": weight, "mask": np.ones(weight.shape, bool), "gram": gram} | change
    start = operands.pop("start", None)
    call = partial(reconstruct_by_layout, layout, *operands.values(), name="experts")
    if start is not None:
        call = partial(admm_by_layout, layout, weight, gram, "2:4", start=start, name="experts")
    with pytest.raises(ms.UpdateError, match=f"'experts'.*{message}"):
        call()


def test_lists_and_patterns_as_strings_are_read() -> None:
    layout, weight, gram = problem("stack out in")
    mask = ms.solve(weight**2, "2:4", layout="stack out in").mask
    update = reconstruct_by_layout(layout, weight.tolist(), mask.tolist(), list(gram))
    np.testing.assert_array_equal(update.weight, reconstruct_by_layout(layout, weight, mask, gram).weight)
    np.testing.assert_array_equal(update.mask, mask)
    update = admm_by_layout(layout, weight, list(gram), "2:4")
    np.testing.assert_array_equal(update.weight, admm_by_layout(layout, weight, gram, ms.parse("2:4")).weight)
