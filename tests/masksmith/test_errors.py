"""Errors are the same after a copy, or after they come from another process."""

import copy
import pickle

import pytest

import masksmith as ms
from masksmith.benchmark.errors import BenchmarkError
from masksmith.layouts import LayoutError
from masksmith.patterns import UnmatchedSelectorError
from masksmith.scores import StatisticError

ERRORS = [
    ms.ScoresError("NaN", (1, 2), "w", "replace it"),
    StatisticError("gram holds NaN", name="w"),
    ms.InfeasibleError("no mask", (0, 1), "w"),
    ms.UpdateError("singular", "w", 3),
    ms.WeightError("empty", "w"),
    ms.PruningError("no blocks", "model"),
    ms.MissingExtraError("masksmith.admm", "torch", "torch"),
    ms.SolverError("unknown"),
    ms.PatternError("unknown"),
    LayoutError("unknown"),
    UnmatchedSelectorError("mlp"),
    BenchmarkError("invalid_mask", "other shape"),
]


def through_pickle(error):
    return pickle.loads(pickle.dumps(error))


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, through_pickle])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_after_a_copy(error, again):
    error.add_note("in another process")
    copied = again(error)
    assert type(copied) is type(error)
    assert (str(copied), copied.args, vars(copied)) == (str(error), error.args, vars(error))
    assert getattr(copied, "name", None) == getattr(error, "name", None)
    assert getattr(copied, "msg", None) == getattr(error, "msg", None)
