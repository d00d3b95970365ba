"""The options `budget` and `floors` of a job: a budget's own floors and those beside it apply together."""

import numpy as np
import pytest

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.submission.prepare import prepare

WEIGHTS = {name: np.ones((32, 64), np.float32) for name in ("a.weight", "b.weight")}


@pytest.mark.parametrize("budget", ["50%", ms.Budget(0.5)])
def test_floors_apply_to_a_budget_of_either_form(budget: str | ms.Budget) -> None:
    options = prepare(WEIGHTS, "8:16", budget=budget, floors=["a*=40%"]).specification.options
    assert (options.budget, options.floors) == ("50%", ["a*=40%"])


def test_floors_are_added_to_those_of_the_budget() -> None:
    budget = ms.Budget(0.5, {"b*": 0.25})
    specification = prepare(WEIGHTS, "8:16", budget=budget, floors=("a*=40%",)).specification
    assert specification.budget == ms.Budget(0.5, {"b*": 0.25, "a*": 0.4})
    with pytest.raises(InputError, match=r"'b\*' has two floors"):
        prepare(WEIGHTS, "8:16", budget=budget, floors=["b*=40%"])


@pytest.mark.parametrize("floors", ["a*=40%", 5, None])
def test_floors_that_are_no_list_are_refused(floors: object) -> None:
    with pytest.raises(InputError, match="floors="):
        prepare(WEIGHTS, "8:16", budget=ms.Budget(0.5), floors=floors)
