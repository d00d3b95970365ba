import numpy as np
import pytest
import torch

from masksmith.patterns import NM
from masksmith_client import InputError
from masksmith_client.submission.prepare import prepare

WEIGHTS = {
    "a.weight": np.ones((8, 8), np.float32),
    "a.bias": np.ones(8, np.float32),
    "b.weight": np.ones((6, 10), np.float32),
    "conv": np.ones((4, 4, 3, 3), np.float32),
    "volume": np.ones((2, 2, 2, 2, 2), np.float32),
    "ids": np.ones((4, 4), np.int64),
    "codes": np.ones((4, 4), np.uint8),
    "[odd]": np.ones((4, 4), np.float32),
}


def names(pattern: str = "2:4", **options: object) -> list[str]:
    return [weight.name for weight in prepare(WEIGHTS, pattern, **options).weights]


def test_everything_that_can_be_masked_is_chosen_and_the_rest_is_listed() -> None:
    submission = prepare(WEIGHTS, "2:4")
    assert [weight.name for weight in submission.weights] == ["a.weight", "b.weight", "conv", "[odd]"]
    assert {skipped.name for skipped in submission.skipped} == {"a.bias", "volume", "ids", "codes"}
    assert all(skipped.reason for skipped in submission.skipped)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"layers": "a.*"}, ["a.weight"]),
        ({"layers": ["conv", "b.weight"]}, ["b.weight", "conv"]),
        ({"layers": "[odd]"}, ["[odd]"]),
        ({"layers": "codes"}, ["codes"]),
        ({"exclude": ["*.weight"]}, ["conv", "[odd]"]),
        ({"layers": "*.weight", "exclude": "b*"}, ["a.weight"]),
        ({"exclude": "[odd]"}, ["a.weight", "b.weight", "conv"]),
        ({"exclude": ["[[]*", "conv"]}, ["a.weight", "b.weight"]),
        ({"layers": ["conv", "a.weight"], "exclude": "a*"}, ["conv"]),
        ({"ragged": "error"}, ["a.weight", "conv", "[odd]"]),
    ],
    ids=str,
)
def test_globs_and_names(options: dict[str, object], expected: list[str]) -> None:
    assert names(**options) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "nothing*"}, "no tensor is called"),
        ({"exclude": "nothing*"}, r"no tensor is called 'nothing\*'; there are a\.weight, .*\(8 in all\)"),
        ({"exclude": ["conv", "nothing"]}, "no tensor is called 'nothing'"),
        ({"layers": "cod*"}, "only its full name selects it"),
        ({"layers": "a.bias"}, r"'a\.bias' cannot be masked"),
        ({"layers": "ids"}, "dtype I64"),
        ({"layers": "b.weight", "ragged": "error"}, "do not cover"),
        ({"layers": "*bias"}, "none of 1"),
        ({"exclude": "*"}, "excluded"),
        ({"solver": "magic"}, "min-cost-flow"),
        ({"axis": "up"}, "axis='up'"),
        ({"time_limit_s": -1.0}, "time_limit_s=-1"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said_before_anything_is_sent(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        names(**options)


def test_everything_that_is_left_out_is_listed_in_the_models_order() -> None:
    skipped = prepare(WEIGHTS, "2:4", layers=["*.weight", "*s"], exclude="b*").skipped
    assert [(skip.name, skip.reason.partition(" ")[0]) for skip in skipped] == [
        ("a.bias", "a"), ("b.weight", "excluded"), ("conv", "not"), ("volume", "not"), ("ids", "dtype"),
        ("codes", "dtype"), ("[odd]", "not"),
    ]  # fmt: skip


@pytest.mark.parametrize("pattern", ["5:4", "2/4", "", "0:4", "transposable 2:4 x 3:4", "2:400"])
def test_bad_patterns(pattern: str) -> None:
    with pytest.raises(InputError):
        names(pattern)


def test_unknown_options_are_a_type_error() -> None:
    with pytest.raises(TypeError, match="colour"):
        names(colour="red")


def test_pattern_objects_bring_axis_and_ragged_along() -> None:
    options = prepare(WEIGHTS, NM(2, 4, axis="out", ragged="dense")).specification.options
    assert (options.pattern, options.axis, options.ragged) == ("2:4", "out", "dense")


def test_a_module_is_its_state_dict() -> None:
    module = torch.nn.Linear(8, 4)
    assert [weight.name for weight in prepare(module, "2:4").weights] == ["weight"]


@pytest.mark.parametrize("weights", [3, [np.ones((2, 2))], None])
def test_other_kinds_of_input_are_refused(weights: object) -> None:
    with pytest.raises(InputError):
        prepare(weights, "2:4")


def test_an_empty_mapping_is_refused() -> None:
    with pytest.raises(InputError, match="no tensors at all"):
        prepare({}, "2:4")


def test_every_submission_has_a_key_of_its_own() -> None:
    assert prepare(WEIGHTS, "2:4").idempotency_key != prepare(WEIGHTS, "2:4").idempotency_key
