"""Arguments of other types than those that functions take: each error names the argument and says what to pass."""

import numpy as np
import pytest

import masksmith as ms
from masksmith import adapters, measures

SCORES = np.random.default_rng(0).random((8, 16))
GRAM = np.eye(16)


NOT_PATTERNS = [["2:4"], (2, 4), None, 2, 0.5, ms.NM]
NO_PATTERN = "is not a pattern; pass a text, such as '2:4', or a pattern"


@pytest.mark.parametrize("pattern", NOT_PATTERNS)
def test_what_is_no_pattern_is_refused(pattern):
    for call in (
        lambda: ms.solve(SCORES, pattern),
        lambda: ms.solve_many({"w": SCORES}, pattern),
        lambda: ms.verify(SCORES > 0.5, pattern),
        lambda: ms.allocate({"w": SCORES}, pattern, "50%"),
        lambda: ms.permute(SCORES, pattern),
        lambda: ms.diversity(pattern),
        lambda: measures.fill(SCORES > 0.5, pattern),
    ):
        with pytest.raises(ms.PatternError, match=NO_PATTERN):
            call()


@pytest.mark.torch
@pytest.mark.parametrize("pattern", NOT_PATTERNS)
def test_what_needs_torch_refuses_what_is_no_pattern(pattern):
    for call in (
        lambda: ms.admm(SCORES, GRAM, pattern),
        lambda: ms.refine(SCORES, SCORES > 0.5, GRAM, pattern),
        lambda: adapters.MaskCalculator(pattern),
        lambda: adapters.MaskPruning(pattern),
    ):
        with pytest.raises(ms.PatternError, match=NO_PATTERN):
            call()


@pytest.mark.parametrize(
    ("solver", "reason"),
    [
        (ms.Exact, r"Exact is a class of solvers; pass a solver, such as Exact\(\)"),
        (3, "3 is no solver: it has no name; pass a name such as 'exact'"),
        (abs, "is no solver: it has no name"),
    ],
)
def test_what_is_no_solver_is_refused(solver, reason):
    for pattern in ("2:4", "transposable 2:4", "50%"):
        with pytest.raises(ms.SolverError, match=reason):
            ms.solve(SCORES, pattern, solver)


def test_a_solver_that_passes_everything_on_is_one():
    class Passing:
        def __getattr__(self, name):
            return getattr(ms.Exact(), name)

        def __call__(self, panel):
            return ms.Exact()(panel)

    assert ms.solve(SCORES, "transposable 2:4", Passing()).gap == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"time_limit_s": "1"}, "time_limit_s='1' is not a number of seconds"),
        ({"time_limit_s": True}, "time_limit_s=True is not a number of seconds"),
        ({"threads": "2"}, "threads='2' is not a whole number"),
        ({"hysteresis": "0.1", "warm_start": SCORES > 0.5}, "hysteresis='0.1' must be finite"),
    ],
)
def test_options_of_other_types_are_refused(options, reason):
    with pytest.raises(ms.SolverError, match=reason):
        ms.solve(SCORES, "2:4", **options)


def test_a_text_is_no_time_limit_of_permute():
    with pytest.raises(ms.SolverError, match="time_limit_s='1' is not a number of seconds"):
        ms.permute(SCORES, "2:4", time_limit_s="1")


def test_what_is_no_solution_or_mapping_is_refused():
    with pytest.raises(ms.ScoresError, match="'solution': a ndarray is no solution; pass the result of solve"):
        ms.report(SCORES)
    with pytest.raises(ms.ScoresError, match="a list is not a mapping of names to tensors; solve takes one tensor"):
        ms.solve_many([SCORES], "2:4")
