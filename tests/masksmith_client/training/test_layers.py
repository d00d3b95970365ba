"""Which layers are masked, and what is refused by name."""

import copy
from types import SimpleNamespace

import pytest
import torch
import transformers
from support.training_loop import WAITING, perceptron, train

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.training import Sparsifier

PATTERN = "transposable 2:4"


def names(sparsifier):
    return [layer.name for layer in sparsifier.report().layers]


def test_all_but_the_first_and_the_last_layer_are_masked(model):
    sparsifier = Sparsifier(model, PATTERN, ms.solve, refresh=None)
    assert names(sparsifier) == ["2.weight", "4.weight"]
    assert sparsifier.report().skipped.keys() == {"0.weight", "6.weight"}


@pytest.mark.parametrize(("globs", "chosen"), [("2", ["2.weight"]), (["[04].weight"], ["0.weight", "4.weight"])])
def test_layers_are_named_as_modules_or_weights(model, globs, chosen):
    assert names(Sparsifier(model, PATTERN, ms.solve, None, layers=globs)) == chosen


def test_what_is_excluded_stays_dense(model):
    assert names(Sparsifier(model, PATTERN, ms.solve, None, exclude="2")) == ["4.weight"]


def test_convolutions_are_masked_channel_last():
    convolutions = [torch.nn.Conv2d(8, 8, 3) for _ in range(3)]
    model = torch.nn.Sequential(*convolutions)
    sparsifier = Sparsifier(model, "2:4", ms.solve, refresh=None)
    [mask] = sparsifier.masks.values()
    assert ms.verify(mask, "2:4")
    assert torch.equal(mask, ms.solve(ms.magnitude(convolutions[1].weight), "2:4").mask & (model[1].weight != 0))


def test_a_shared_weight_has_one_mask():
    model = perceptron()
    model[4].weight = model[2].weight
    with Sparsifier(model, PATTERN, ms.solve, refresh=WAITING) as sparsifier:
        train(model, torch.optim.SGD(model.parameters(), 0.1), sparsifier, 6)
        assert names(sparsifier) == ["2.weight"]
        assert torch.equal(model[2].weight, model[4].weight)
        sparsifier.bake()
    assert model[2].weight is model[4].weight
    assert ms.verify(model[2].weight != 0, PATTERN)


@pytest.mark.parametrize("text", ["2", "4", "4.weight", "[4]"])
def test_every_name_of_a_shared_weight_is_its_name(text):
    model = perceptron()
    model[4].weight = model[2].weight
    assert names(Sparsifier(model, PATTERN, ms.solve, None, layers=text)) == ["2.weight"]
    model = perceptron()
    model[4].weight = model[2].weight
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None, layers="*", exclude=text)
    assert names(sparsifier) == ["0.weight", "6.weight"]
    assert sparsifier.report().skipped == {"2.weight": "excluded"}


@pytest.mark.parametrize("text", ["again", "again.weight", "ag*"])
def test_a_layer_that_is_registered_twice_has_both_names(text):
    model = perceptron()
    model.add_module("again", model[2])
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None, layers=text)
    assert names(sparsifier) == ["2.weight"]
    assert sparsifier.report().shared_names == {"again.weight": "2.weight"}
    assert "again.weight is the same weight as 2.weight" in str(sparsifier.report())


def test_layers_that_are_not_selected_are_reported(model):
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None, layers="[24]", exclude="4")
    assert sparsifier.report().skipped == {
        "0.weight": "not selected", "4.weight": "excluded", "6.weight": "not selected"
    }  # fmt: skip


def test_weights_of_integers_are_refused_by_name():
    model = perceptron()
    model[2].weight = torch.nn.Parameter(torch.ones(32, 32, dtype=torch.int8), requires_grad=False)
    with pytest.raises(InputError, match=r"'2.weight' cannot be masked: dtype torch.int8 cannot be trained"):
        Sparsifier(model, PATTERN, ms.solve, None, layers="2")


@pytest.mark.parametrize("layers", ["2", "4"])
@pytest.mark.parametrize("form", ["transpose", "slice", "same"])
def test_a_weight_that_shares_memory_with_another_parameter_is_refused(form, layers):
    model = perceptron()
    weight = model[2].weight.data
    model[4].weight = torch.nn.Parameter({"transpose": weight.T, "slice": weight[:16], "same": weight}[form])
    message = rf"'{layers}.weight' cannot be masked: it shares memory with '[24].weight', which is another parameter"
    with pytest.raises(InputError, match=message):
        Sparsifier(model, PATTERN, ms.solve, None, layers=layers)
    assert names(Sparsifier(model, PATTERN, ms.solve, None, layers="0")) == ["0.weight"]


def test_a_weight_whose_entries_share_memory_is_refused():
    model = perceptron()
    model[2].weight = torch.nn.Parameter(torch.randn(1, 32).expand(32, 32))
    with pytest.raises(InputError, match=r"'2.weight' cannot be masked: several of its entries are one place in mem"):
        Sparsifier(model, PATTERN, ms.solve, None, layers="2")


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@pytest.mark.parametrize("form", ["to_sparse", "to_sparse_csr", "to_mkldnn"])
def test_a_weight_of_another_layout_is_refused_and_may_be_beside_masked_ones(form):
    model = perceptron()
    model[2].weight = torch.nn.Parameter(getattr(model[2].weight.detach(), form)())
    with pytest.raises(
        InputError, match=r"'2.weight' cannot be masked: its layout is torch\..*: convert it by to_dense"
    ):
        Sparsifier(model, PATTERN, ms.solve, None, layers="2")
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None, layers=["0", "4"])
    assert "2.weight" in sparsifier.report().skipped


def test_masks_that_sit_on_layers_already_are_not_covered(model):
    Sparsifier(model, PATTERN, ms.solve, refresh=None)
    with pytest.raises(InputError, match=r"'2.weight' and 1 other\(s\): it has the mask of another Sparsifier"):
        Sparsifier(model, PATTERN, ms.solve, refresh=None)


def test_a_model_without_layers_is_refused():
    with pytest.raises(InputError, match="no linear or convolution layer"):
        Sparsifier(torch.nn.Sequential(torch.nn.ReLU()), PATTERN, ms.solve)


def test_biases_that_are_not_initialized_are_no_layers():
    model = torch.nn.Sequential(*(torch.nn.LazyLinear(32) for _ in range(3)))
    with pytest.raises(InputError, match=r"none of 3 linear or convolution layer\(s\) can be masked"):
        Sparsifier(model, "2:4", ms.solve)


def test_an_error_of_the_config_is_raised_as_it_is(model):
    def to_dict():
        raise TypeError("the config is broken")

    model.config = SimpleNamespace(to_dict=to_dict)
    with pytest.raises(TypeError, match=r"^the config is broken"):
        Sparsifier(model, "2:4", ms.solve, WAITING)


def test_a_model_of_two_layers_is_told_to_name_them():
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    with pytest.raises(InputError, match=r"'0.weight': the first layer stays dense.*layers="):
        Sparsifier(model, PATTERN, ms.solve)


def test_a_glob_that_meets_nothing_is_refused(model):
    with pytest.raises(InputError, match=r"'encoder.\*'; there are 0.weight, 2.weight"):
        Sparsifier(model, PATTERN, ms.solve, layers="encoder.*")
    with pytest.raises(InputError, match=r"no linear or convolution layer is called 'encoder.\*'"):
        Sparsifier(model, PATTERN, ms.solve, exclude="encoder.*")


def test_a_pattern_that_fits_no_layer_is_refused(model):
    pattern = ms.parse("transposable 8:24", ragged="error")
    with pytest.raises(InputError, match=r"no layer is left.*'2.weight'.*24x24 do not cover a 32x32"):
        Sparsifier(model, pattern, ms.solve, exclude=["0", "6"])
    with pytest.raises(InputError, match=r"'2.weight' cannot be masked: .*do not cover"):
        Sparsifier(model, pattern, ms.solve, layers=["2"])


def test_something_that_finds_no_masks_is_refused(model):
    with pytest.raises(InputError, match="masks='http://x' is neither a Client nor a function"):
        Sparsifier(model, PATTERN, "http://x")


def test_weights_that_are_no_numbers_are_refused_and_the_model_stays_as_it_was(model):
    model[4].weight.data[3, 5] = torch.nan
    before = sorted(model.state_dict())
    with pytest.raises(InputError, match=r"'4.weight' has no mask: .*NaN at \[3, 5\]"):
        Sparsifier(model, PATTERN, ms.solve)
    assert sorted(model.state_dict()) == before


def test_a_layer_that_changed_shape_is_named(model, optimizer):
    sparsifier = Sparsifier(model, PATTERN, ms.solve, WAITING)
    model[2].parametrizations.weight.original.data = torch.zeros(16, 16)
    with pytest.raises(InputError, match=r"'2.weight' changed shape from \[32, 32\] to \[16, 16\]"):
        sparsifier.refresh_now()


def test_a_layer_that_was_replaced_is_named(model):
    sparsifier = Sparsifier(model, PATTERN, ms.solve, WAITING)
    model[4] = torch.nn.Linear(32, 32)
    with pytest.raises(InputError, match="layer '4' was replaced after it was masked"):
        sparsifier.refresh_now()


class Decoder(torch.nn.Module):
    """Uses the weight of a layer in the other direction; its class does not show the axes."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, inputs):
        return inputs @ self.weight


DECODERS = {
    "conv1d": (torch.nn.Linear(16, 16), transformers.pytorch_utils.Conv1D(16, 16)),
    "transposed convolution": (torch.nn.Conv1d(16, 16, 1), torch.nn.ConvTranspose1d(16, 16, 1)),
    "unknown": (torch.nn.Linear(16, 16), Decoder(torch.nn.Parameter(torch.randn(16, 16)))),
}


SHARED_REASONS = {
    "conv1d": "use it along different axes",
    "transposed convolution": "use it along different axes",
    "unknown": "the class of 'decoder' does not show along which axis",
}


def with_a_decoder(kind):
    first, second = copy.deepcopy(DECODERS[kind])
    second.weight = first.weight
    return torch.nn.ModuleDict({"encoder": first, "decoder": second, "other": torch.nn.Linear(16, 16)})


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("in_place", [False, True])
def test_a_weight_that_is_used_along_two_axes_is_not_masked_along_one(kind, in_place):
    options = {"masks": ms.solve, "refresh": None, "method": "fixed", "in_place": in_place}
    for name in ("encoder", "decoder"):
        with pytest.raises(InputError, match=f"'encoder' and 'decoder' share it, and {SHARED_REASONS[kind]}"):
            Sparsifier(with_a_decoder(kind), "2:4", layers=name, **options)
    sparsifier = Sparsifier(with_a_decoder(kind), "2:4", layers="*", **options)
    assert SHARED_REASONS[kind] in sparsifier.report().skipped["encoder.weight"]
    axes = "out in" if kind != "transposed convolution" else "out in kernel"
    model = with_a_decoder(kind)
    Sparsifier(model, "2:4", layers="decoder", layouts={"decoder": axes}, **options).bake()
    assert ms.verify((model["decoder"].weight != 0).reshape(16, 16), "2:4")


@pytest.mark.parametrize("pattern", ["transposable 2:4", "double 2:4", "50%", "block 4x4 50%", "hybrid 4x4 2:4 50%"])
@pytest.mark.parametrize("kind", DECODERS)
def test_a_weight_that_is_used_along_two_axes_has_a_mask_that_holds_along_both(pattern, kind):
    model = with_a_decoder(kind)
    if pattern.startswith("hybrid"):
        with pytest.raises(InputError, match=SHARED_REASONS[kind]):
            Sparsifier(model, pattern, ms.solve, None, layers="encoder")
        pattern = pattern.replace("2:4", "transposable 2:4")
    Sparsifier(model, pattern, ms.solve, None, layers="encoder").bake()
    mask = (model["decoder"].weight != 0).reshape(16, 16)
    assert ms.verify(mask, pattern)
    assert ms.verify(mask.T, pattern)


def test_transposable_tiles_along_a_kernel_hold_along_one_axis():
    model = torch.nn.ModuleDict({"a": torch.nn.Conv1d(4, 4, 4), "b": torch.nn.ConvTranspose1d(4, 4, 4)})
    model["b"].weight = model["a"].weight
    with pytest.raises(InputError, match="different axes"):
        Sparsifier(model, PATTERN, ms.solve, None, layers="a")


class Wrapper(torch.nn.Module):
    """Has the weight of the layer that it contains."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.weight = layer, layer.weight

    def forward(self, inputs):
        return self.layer(inputs)


def test_a_wrapper_that_has_the_weight_of_its_layer_uses_it_along_the_same_axis():
    model = torch.nn.Sequential(*[Wrapper(torch.nn.Linear(8, 8)) for _ in range(4)])
    sparsifier = Sparsifier(model, "2:4", ms.solve, None)
    assert names(sparsifier) == [f"{index}.layer.weight" for index in range(4)]
    sparsifier.step()
    sparsifier.bake()
    assert ms.verify(model[1].weight != 0, "2:4")
    assert model[1].layer.weight is model[1].weight


class ParallelEmbedding(torch.nn.Module):
    """An embedding that is no subclass of torch's."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(16, 16))


@pytest.mark.parametrize("embedding", [torch.nn.Embedding(16, 16), ParallelEmbedding()])
def test_an_embedding_shares_the_weight_of_a_masked_layer(embedding):
    model = torch.nn.ModuleDict({"embedding": embedding, "head": torch.nn.Linear(16, 16)})
    model["head"].weight = model["embedding"].weight
    Sparsifier(model, "2:4", ms.solve, None, layers=["head"]).bake()
    assert ms.verify(model["embedding"].weight != 0, "2:4")


def test_a_weight_that_a_bilinear_shares_is_not_masked():
    model = torch.nn.ModuleDict({"first": torch.nn.Conv1d(8, 8, 8), "second": torch.nn.Bilinear(8, 8, 8)})
    model["second"].weight = model["first"].weight
    with pytest.raises(InputError, match="Bilinear multiplies with two inputs"):
        Sparsifier(model, "2:4", ms.solve, None, layers="first")


class Renamed(torch.nn.Module):
    """Has the weight of a layer as `projection`."""

    def __init__(self, weight):
        super().__init__()
        self.projection = weight


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("name", ["linear", "linear.weight", "renamed.projection", "alias"])
def test_a_weight_that_the_model_holds_under_two_names_is_not_masked(name, in_place):
    model = torch.nn.ModuleDict({"linear": torch.nn.Linear(8, 8), "other": torch.nn.Linear(8, 8)})
    if name == "alias":
        model.alias, other = model["linear"].weight, "alias"
    else:
        model["renamed"], other = Renamed(model["linear"].weight), "renamed.projection"
    options = {"masks": ms.solve, "refresh": None, "method": "fixed", "in_place": in_place}
    with pytest.raises(InputError, match=f"'linear.weight' cannot be masked: the model also holds it as '{other}'"):
        Sparsifier(model, "2:4", layers=[name], **options)
    sparsifier = Sparsifier(model, "2:4", layers="*", **options)
    assert names(sparsifier) == ["other.weight"]
    assert "also holds it as" in sparsifier.report().skipped["linear.weight"]
    sparsifier.step()


@pytest.mark.parametrize("container", [torch.nn.ParameterList, torch.nn.ParameterDict])
def test_a_container_that_lists_weights_of_layers_is_no_other_use(container):
    model = torch.nn.ModuleDict({"net": torch.nn.Sequential(*[torch.nn.Linear(8, 8) for _ in range(3)])})
    weights = [layer.weight for layer in model["net"]]
    model["decay"] = container(weights) if container is torch.nn.ParameterList else container({"a": weights[1]})
    sparsifier = Sparsifier(model, "2:4", ms.solve, None)
    assert names(sparsifier) == ["net.1.weight"]
    sparsifier.bake()
    assert ms.verify(model["net"][1].weight != 0, "2:4")


def test_a_weight_that_two_containers_list_is_not_masked_in_one():
    model = torch.nn.ModuleDict({"decay": torch.nn.ParameterList([torch.nn.Parameter(torch.randn(8, 8))])})
    model["used"] = torch.nn.ParameterDict({"w": model["decay"][0]})
    with pytest.raises(InputError, match=r"also holds it as 'used\.w'"):
        Sparsifier(model, "2:4", ms.solve, None, layers="decay.0", layouts={"decay.0": "out in"})


def test_a_weight_of_a_recurrent_layer_is_not_masked_as_that_of_a_linear_layer():
    model = torch.nn.ModuleDict({"linear": torch.nn.Linear(8, 32), "lstm": torch.nn.LSTM(8, 8)})
    model["linear"].weight = model["lstm"].weight_ih_l0
    with pytest.raises(InputError, match="LSTM passes its weights to a kernel"):
        Sparsifier(model, "2:4", ms.solve, None, layers="linear")


class WithTable(torch.nn.Linear):
    """A linear layer with a parameter of its own."""

    def __init__(self, size):
        super().__init__(size, size)
        self.table = torch.nn.Parameter(torch.randn(3, size))


def test_a_parameter_of_a_numbered_layer_is_no_block():
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), WithTable(8), torch.nn.Linear(8, 8))
    sparsifier = Sparsifier(model, "2:4", ms.solve, None)
    assert names(sparsifier) == ["1.weight"]
    assert "first layer" in sparsifier.report().skipped["0.weight"]
