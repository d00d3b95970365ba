"""Several names of one parameter in memory get one mask, so that a state dict with all of them can be loaded."""

import numpy as np
import pytest
import torch

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.submission.overlaps import overlapping_pairs
from masksmith_client.submission.prepare import prepare
from masksmith_client.submission.tensors import read_mapping
from masksmith_client.submission.ties import ties_in_memory


class Tied(torch.nn.Module):
    """A layer that is registered twice, another layer with its weight, and an embedding with the head's weight."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(32, 16)
        self.first, self.second = torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)
        self.third, self.head = self.first, torch.nn.Linear(16, 32)
        self.second.weight, self.head.weight = self.first.weight, self.embedding.weight

    def forward(self, tokens):
        return self.head(self.third(self.second(self.first(self.embedding(tokens)))))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Tied()


THREE = ["first.weight", "second.weight", "third.weight"]


def names_of(weights, pattern="2:4", **options):
    return [weight.name for weight in prepare(weights, pattern, **options).weights]


@pytest.mark.parametrize("as_module", [True, False])
def test_the_statistics_of_one_name_are_those_of_all(model, as_module):
    calibration = ms.calibrate(model, [torch.arange(32)[:, None]])
    prepared = prepare(model if as_module else model.state_dict(), "2:4", scores="wanda", calibration=calibration)
    assert [weight.name for weight in prepared.weights if weight.name in THREE] == THREE
    statistics = prepared.auxiliary.statistics
    assert len({statistics[name].tensor.digest() for name in THREE}) == 1


def test_all_names_of_a_selected_weight_are_masked(model):
    assert names_of(model, layers="second.weight") == THREE
    # An embedding is dense by default; the head that is selected is the same parameter.
    assert names_of(model, layers="head.weight") == ["embedding.weight", "head.weight"]
    assert names_of(model) == THREE


@pytest.mark.parametrize(
    ("pattern", "options", "message"),
    [
        ("2:4", {"exclude": "second.*"}, r"'second\.weight' is excluded, and it is tied to 'first\.weight'"),
        ({"first.weight": "2:4", "*": "1:4"}, {}, r"'second\.weight' and 'first\.weight' are tied, and their patterns"),
    ],
)
def test_names_of_one_weight_cannot_be_treated_differently(model, pattern, options, message):
    with pytest.raises(InputError, match=message):
        prepare(model, pattern, **options)


def test_a_budget_does_not_count_a_weight_twice(model):
    with pytest.raises(InputError, match=r"'second\.weight' and 'first\.weight' are names of one weight"):
        prepare(model, "4:8", budget="50%")
    once = {name: value for name, value in model.state_dict().items() if name not in THREE[1:]}
    assert names_of(once, "4:8", budget="50%") == THREE[:1]


@pytest.mark.parametrize(("scores", "shape", "kind"), [("wanda", 16, "norms"), ("given", (16, 16), "scores")])
def test_names_of_one_weight_have_one_statistic(model, scores, shape, kind):
    ones = {name: torch.ones(shape) for name in THREE}
    prepared = prepare(model, "2:4", scores=scores, calibration=ones)
    assert len({statistic.tensor.digest() for statistic in prepared.auxiliary.statistics.values()}) == 1
    with pytest.raises(InputError, match=rf"'first\.weight' and 'third\.weight' are tied, .* and their {kind} differ"):
        prepare(model, "2:4", scores=scores, calibration=ones | {THREE[2]: torch.full_like(ones[THREE[2]], 2.0)})


def test_names_of_one_weight_have_one_layout(model):
    with pytest.raises(InputError, match=r"tied, and their layouts differ: 'out in' and 'in out'"):
        prepare(model, "2:4", layout={"first.weight": "in out"})
    weights = prepare(model, "2:4", layout=dict.fromkeys(THREE, "in out")).weights
    assert {str(weight.layout) for weight in weights if weight.name in THREE} == {"in out"}


def test_tensors_are_tied_by_their_memory():
    tensor = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    weights = {"a": tensor, "view": tensor[:], "half": tensor[:4], "copy": tensor.clone(), "array": tensor.numpy()}
    assert names_of(weights, layers="a") == ["a", "view"]


SQUARE = torch.arange(256.0).reshape(16, 16)
OTHER_FORMS = {"transpose": SQUARE.T, "slice": SQUARE[3:7, 4:], "other shape": SQUARE.reshape(8, 32)}


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_weights_that_share_memory_in_different_forms_are_not_both_masked(form):
    weights = {"first.weight": SQUARE, "second.weight": OTHER_FORMS[form]}
    message = "'first.weight' and 'second.weight' share memory in different forms"
    with pytest.raises(InputError, match=message):
        prepare(weights, "2:4")
    assert names_of(weights, exclude="second.weight") == ["first.weight"]
    assert names_of({**weights, "second.weight": OTHER_FORMS[form].clone()}) == list(weights)


def test_parts_of_one_tensor_without_common_entries_are_masked():
    upper, lower = SQUARE.chunk(2)
    left, right = lower.chunk(2, dim=1)
    weights = {"upper.weight": upper, "left.weight": left, "right.weight": right}
    assert names_of(weights) == list(weights)


class Quantised(torch.Tensor):
    """A tensor that keeps its values in another one, as torchao's; it has no address of its own."""

    @staticmethod
    def __new__(cls, values):
        return torch.Tensor._make_wrapper_subclass(cls, values.shape, dtype=values.dtype)

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), keywords=None):
        raise NotImplementedError(function)


def test_tensors_without_bytes_of_their_own_are_skipped():
    prepared = prepare({"first.weight": Quantised(torch.ones(8, 8)), "second.weight": torch.ones(8, 8)}, "2:4")
    assert [weight.name for weight in prepared.weights] == ["second.weight"]
    (skipped,) = prepared.skipped
    assert (skipped.name, skipped.reason) == (
        "first.weight", "a Quantised keeps its values in other tensors; pass a plain tensor, such as .dequantize()"
    )  # fmt: skip
    empty = prepare({"first.weight": torch.ones(8, 8), "second.weight": torch.ones(0, 8)}, "2:4")
    assert "Tensor" not in str(empty.skipped)


def test_a_view_with_negated_entries_is_sent_as_its_entries():
    values = torch.randn(8, 8, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    negated = values.conj().imag
    assert negated.is_neg()
    (weight,) = prepare({"first.weight": negated}, "2:4").weights
    assert b"".join(bytes(piece) for piece in weight.read()) == (-values.imag).numpy().tobytes()
    conjugated = read_mapping({"w": values.conj()})[0]
    assert b"".join(bytes(piece) for piece in conjugated.read()) == values.numpy().conj().tobytes()


def test_tensors_without_an_address_are_not_tied():
    weights = {"first.weight": Quantised(torch.ones(8, 8)), "second.weight": Quantised(torch.zeros(8, 8))}
    assert ties_in_memory(weights) == overlapping_pairs(weights) == []


class OnAnotherDevice(torch.Tensor):
    """A tensor of a second device, whose memory has the same addresses."""

    device = torch.device("cuda", 1)


def test_tensors_of_two_devices_at_one_address_are_not_tied():
    weights = {"first.weight": SQUARE, "second.weight": SQUARE.as_subclass(OnAnotherDevice)}
    assert ties_in_memory(weights) == overlapping_pairs(weights) == []


def test_strides_for_which_the_search_of_a_common_entry_is_hard_count_as_shared_memory(monkeypatch):
    base = torch.empty(192_163_377, dtype=torch.int8)  # The example of the documentation of `np.shares_memory`.
    first = torch.as_strided(base, (1049, 1049, 1049), (36674, 61119, 85569))
    second = torch.as_strided(base, (1049, 1049, 1), (12223, 12224, 1), 64_023_025)
    search, limits = np.shares_memory, []

    def bounded(*arrays, max_work=None):
        limits.append(max_work)
        return search(*arrays, max_work=min(max_work or 1000, 1000))

    monkeypatch.setattr(np, "shares_memory", bounded)
    assert overlapping_pairs({"first": first, "second": second}) == [("first", "second")]
    assert None not in limits
