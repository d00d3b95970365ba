"""A job is refused for a number that the library would refuse, and for no other."""

import numpy as np
import pytest

import masksmith as ms
from masksmith import scores
from masksmith_wire.documents import MasksOptions
from masksmith_wire.scores import ScoreMethod
from masksmith_wire.specification import JobSpecification, SpecificationError
from masksmith_wire.updates import UpdateMethod

RNG = np.random.default_rng(0)
WEIGHT, INPUTS = RNG.standard_normal((8, 8)), RNG.standard_normal((40, 8))
NORMS, GRAM = np.linalg.norm(INPUTS, axis=0), INPUTS.T @ INPUTS
MASK = ms.solve(abs(WEIGHT), "2:4").mask
LIBRARY = {
    "magnitude power": lambda power: ms.magnitude(WEIGHT, power),
    "ria power": lambda power: ms.ria(WEIGHT, NORMS, power),
    "sparsegpt damping": lambda damping: scores.inverse_diagonal(GRAM, damping=damping),
    "reconstruct damping": lambda damping: ms.reconstruct(WEIGHT, MASK, GRAM, damping=damping),
    "admm damping": lambda damping: ms.admm(WEIGHT, GRAM, "2:4", damping=damping, max_rounds=1),
    "admm penalty": lambda penalty: ms.admm(WEIGHT, GRAM, "2:4", penalty=penalty, max_rounds=1),
}
RANGES = {
    f"{name} {option}": option_type.range
    for methods in (ScoreMethod.methods, UpdateMethod.methods)
    for name, option_types in methods.items()
    for option, option_type in option_types.items()
    if option_type.range is not None
}


def specify(text):
    member = "update" if text.startswith(("reconstruct", "admm")) else "scores"
    return JobSpecification.parse(MasksOptions.model_validate({"pattern": "2:4", member: text}))


def test_each_range_is_compared():
    assert RANGES.keys() == LIBRARY.keys()


@pytest.mark.parametrize("option", LIBRARY)
def test_the_range_is_that_of_the_library(option):
    least, largest = RANGES[option]
    for value in (least, largest):
        LIBRARY[option](value)
        specify(f"{option}={value}")
    for value in (np.nextafter(largest, np.inf), *([np.nextafter(least, 0)] if least else [])):
        with pytest.raises((ms.ScoresError, ms.UpdateError), match="is not a number from"):
            LIBRARY[option](float(value))
        with pytest.raises(SpecificationError, match=f"{option.split()[1]}=.* is not a number from") as caught:
            specify(f"{option}={float(value)!r}")
        assert caught.value.code == "invalid_document"


def test_an_earlier_job_with_such_a_number_can_be_read():
    assert MasksOptions(pattern="2:4", scores="magnitude power=20").scores.options == {"power": 20}
