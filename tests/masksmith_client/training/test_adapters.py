"""Low-rank adapters beside masks: left dense, merged within the pattern, refused where they are something else."""

import copy

import pytest
import torch

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.training import Fixed, Sparsifier

PATTERN = "2:4"
INPUTS = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))


class Wrapped(torch.nn.Module):
    """As peft's: the layer as `base_layer`, adapters by name."""

    def __init__(self, base):
        super().__init__()
        self.base_layer = base
        pairs = {name: torch.nn.Linear(base.in_features, 4, bias=False) for name in ("one", "two")}
        self.lora_A = torch.nn.ModuleDict(pairs)
        self.lora_B = torch.nn.ModuleDict({name: torch.nn.Linear(4, base.out_features, bias=False) for name in pairs})
        self.scaling, self.active_adapters, self.merged = {"one": 2.0, "two": 3.0}, ["one"], False

    def forward(self, inputs):
        parts = [self.scaling[name] * self.lora_B[name](self.lora_A[name](inputs)) for name in self.active_adapters]
        return self.base_layer(inputs) + sum(parts)


class Own(torch.nn.Linear):
    """As loralib's: a linear layer with its own parameters A and B."""

    def __init__(self, size, rank=4):
        super().__init__(size, size)
        self.lora_A = torch.nn.Parameter(torch.randn(rank, size) * 0.1)
        self.lora_B = torch.nn.Parameter(torch.randn(size, rank) * 0.1)
        self.scaling = 0.5

    def forward(self, inputs):
        return super().forward(inputs) + inputs @ self.lora_A.T @ self.lora_B.T * self.scaling


class Alpha(torch.nn.Linear):
    """As torchtune's: linear layers a and b, and alpha."""

    def __init__(self, size, rank=4):
        super().__init__(size, size)
        self.lora_a = torch.nn.Linear(size, rank, bias=False)
        self.lora_b = torch.nn.Linear(rank, size, bias=False)
        self.alpha = 8

    def forward(self, inputs):
        return super().forward(inputs) + self.lora_b(self.lora_a(inputs)) * self.alpha / 4


KINDS = {"wrapped": lambda: Wrapped(torch.nn.Linear(16, 16)), "own": lambda: Own(16), "alpha": lambda: Alpha(16)}


def model_of(kind):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(16, 16), KINDS[kind](), torch.nn.Linear(16, 16))


def product(holder):
    """What the adapter adds to the weight: the outputs of unit vectors without the base."""
    with torch.no_grad():
        unit = torch.eye(16)
        base = holder.base_layer if isinstance(holder, Wrapped) else holder
        return (holder(unit) - torch.nn.functional.linear(unit, base.weight, base.bias)).T


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("in_place", [False, True])
def test_merged_weights_have_the_pattern(kind, in_place):
    model = model_of(kind)
    base = model[1].base_layer if kind == "wrapped" else model[1]
    base.weight.requires_grad_(False)
    plain, change = base.weight.detach().clone(), product(model[1])
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None, Fixed(), in_place=in_place)
    [(name, mask)] = sparsifier.masks.items()
    lost = sparsifier.merge_adapters()
    expected = (plain + change) * mask
    torch.testing.assert_close(base.weight.detach(), expected)
    assert lost == {name: pytest.approx(float((change * ~mask).norm() ** 2 / change.norm() ** 2), rel=1e-4)}
    torch.testing.assert_close(model[1](INPUTS), torch.nn.functional.linear(INPUTS, expected, base.bias))
    sparsifier.bake()
    assert ms.verify(base.weight != 0, PATTERN)
    torch.testing.assert_close(base.weight.detach(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_an_adapter_that_changes_nothing_loses_nothing(dtype):
    model = model_of("wrapped").to(dtype)
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name:
            torch.nn.init.zeros_(parameter)
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None, Fixed())
    assert sparsifier.merge_adapters() == dict.fromkeys(sparsifier.masks, 0.0)


def test_all_active_adapters_are_merged_and_masks_may_follow():
    model = model_of("wrapped")
    model[1].active_adapters = ["one", "two"]
    plain, change = model[1].base_layer.weight.detach().clone(), product(model[1])
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None)
    sparsifier.merge_adapters()
    sparsifier.refresh_now()
    expected = torch.as_tensor(ms.solve((plain + change).abs(), PATTERN).mask)
    assert torch.equal(sparsifier.masks["1.base_layer.weight"], expected)


def test_adapters_stay_dense_unless_they_are_named():
    model = model_of("wrapped")
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None, layers="1*")
    assert list(sparsifier.masks) == ["1.base_layer.weight"]
    assert "low-rank adapter" in sparsifier.report().skipped["1.lora_A.one.weight"]
    sparsifier.bake()
    named = Sparsifier(model, PATTERN, ms.solve, None, layers=["1.lora_A.one.weight"])
    assert list(named.masks) == ["1.lora_A.one.weight"]


def test_a_layer_wrapped_after_masking_keeps_its_present_name_in_plain_states():
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(3)))
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None)
    model[1] = Wrapped(model[1])
    sparsifier.step()
    state = sparsifier.plain_state_dict()
    assert ms.verify(state["1.base_layer.weight"] != 0, PATTERN)
    assert "1.weight" not in state
    copied = sparsifier.bake(copy.deepcopy(model))
    assert ms.verify(copied[1].base_layer.weight != 0, PATTERN)


def with_value(attribute, value):
    return lambda layer: setattr(layer, attribute, value)


def with_two_shapes(layer):
    layer.active_adapters = ["one", "two"]
    layer.lora_B.update({"two": torch.nn.Linear(4, 8, bias=False)})


REFUSED = {
    "merged": (with_value("merged", True), "merged already"),
    "dora": (with_value("lora_magnitude_vector", torch.nn.ModuleDict({"one": torch.nn.Linear(1, 1)})), "DoRA"),
    "variant": (with_value("lora_variant", {"one": object()}), "variant of LoRA"),
    "scaling": (with_value("scaling", {}), "neither a scaling nor an alpha"),
    "shape": (lambda layer: layer.lora_B.update({"one": torch.nn.Linear(4, 8, bias=False)}), r"has shape \[8, 16\]"),
    "shape of the second": (with_two_shapes, r"has shape \[8, 16\]"),
    "transposed": (
        lambda layer: layer.lora_A.update({"one": torch.nn.Linear(4, 16, bias=False)}),
        r"A has shape \[16, 4",
    ),
    "bias": (lambda layer: layer.lora_B.update({"one": torch.nn.Linear(4, 16)}), "or have a bias"),
    "nan": (lambda layer: layer.lora_A["one"].weight.data.fill_(torch.nan), "NaN"),
    "transposed weight": (with_value("fan_in_fan_out", True), "its weight is transposed"),
    "none": (with_value("active_adapters", []), "no masked layer has an active adapter"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_merged_is_named_and_left_as_it_was(case):
    spoil, message = REFUSED[case]
    model = model_of("wrapped")
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None)
    spoil(model[1])
    before = model[1].base_layer.weight.detach().clone()
    with pytest.raises(InputError, match=message):
        sparsifier.merge_adapters()
    assert torch.equal(model[1].base_layer.weight, before)


@pytest.mark.parametrize("wrapped", [1, 2])
def test_an_adapter_of_one_of_two_layers_with_the_same_weight_is_not_merged_into_both(wrapped):
    model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(4)))
    model[2].weight = model[1].weight
    model[wrapped] = Wrapped(model[wrapped])
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None)
    before = model[3 - wrapped].weight.detach().clone()
    with pytest.raises(InputError, match=r"cannot be merged: '1.*' and '2.*' share the weight"):
        sparsifier.merge_adapters()
    assert torch.equal(model[3 - wrapped].weight, before)


def test_adapters_of_peft():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(3)))
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["1"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, config)
    layer = adapted.base_model.model[1]
    plain, delta = layer.base_layer.weight.detach().clone(), layer.get_delta_weight("default").detach()
    sparsifier = Sparsifier(adapted, PATTERN, ms.solve, None)
    [name] = sparsifier.masks
    with pytest.raises(InputError, match="peft merges into masked values"):
        layer.merge()
    sparsifier.merge_adapters()
    expected = (plain + delta) * sparsifier.masks[name]
    sparsifier.bake()
    unloaded = adapted.unload()
    torch.testing.assert_close(unloaded[1].weight.detach(), expected)
    assert ms.verify(unloaded[1].weight != 0, PATTERN)


class Merging(Own):
    """As loralib's: `eval()` merges the adapter into the weight, and `train()` subtracts it again."""

    def __init__(self, size, rank=4):
        super().__init__(size, rank)
        self.merged, self.merge_weights = False, True

    def train(self, mode=True):
        torch.nn.Linear.train(self, mode)
        if self.merge_weights and self.merged == mode:
            self.weight.data += (self.lora_B @ self.lora_A) * (-self.scaling if mode else self.scaling)
            self.merged = not mode
        return self

    def fuse_and_merge(self):
        self.weight.data += self.lora_B @ self.lora_A

    def forward(self, inputs):
        return torch.nn.Linear.forward(self, inputs) if self.merged else super().forward(inputs)


class AroundLinear(Merging):
    """As loralib's convolutions: the layer with the weight is a module of the one with the adapter."""

    def __init__(self, size):
        super().__init__(size)
        del self.weight, self.bias
        self.linear = torch.nn.Linear(size, size)

    weight = property(lambda self: self.linear.weight)
    bias = property(lambda self: self.linear.bias)


MERGING = {"a subclass": Merging, "around the layer": AroundLinear}


def model_that_merges(kind):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(16, 16), MERGING[kind](16), torch.nn.Linear(16, 16))


def test_a_layer_that_merges_in_eval_is_refused_there():
    model = model_that_merges("a subclass")
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None, Fixed())
    before = model.get_parameter("1.weight").detach().clone()
    with pytest.raises(InputError, match=r"Merging.train\(\) merges an adapter into masked values.*merge_weights"):
        model.eval()
    with pytest.raises(InputError, match=r"Merging.fuse_and_merge\(\) merges an adapter into masked values"):
        model[1].fuse_and_merge()
    assert torch.equal(model.get_parameter("1.weight"), before)
    model[1].merge_weights = False
    outputs = model.train()(INPUTS)
    assert torch.equal(model.eval()(INPUTS), outputs)
    sparsifier.merge_adapters()
    sparsifier.bake()
    assert ms.verify(model[1].weight != 0, PATTERN)


@pytest.mark.parametrize("kind", MERGING)
def test_a_weight_masked_in_place_is_not_touched_while_its_adapter_is_merged(kind):
    model = model_that_merges(kind)
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None, Fixed(), in_place=True)
    outputs, merged_outputs = model(INPUTS), model.eval()(INPUTS)
    torch.testing.assert_close(merged_outputs, outputs)
    for call in (sparsifier.step, sparsifier.bake, sparsifier.plain_state_dict, sparsifier.merge_adapters):
        with pytest.raises(InputError, match=r"layer '1.*' has an adapter, and it is merged already.*unmerge"):
            call()
    assert torch.equal(model(INPUTS), merged_outputs)
    model.train()
    sparsifier.step()
    torch.testing.assert_close(model(INPUTS), outputs)
    sparsifier.bake()
    assert ms.verify(model[1].weight != 0, PATTERN)


@pytest.mark.parametrize("kind", MERGING)
def test_a_copy_whose_adapter_is_merged_is_not_baked(kind):
    model = model_that_merges(kind)
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None, Fixed(), in_place=True)
    average = copy.deepcopy(model).eval()
    merged = average[1].weight.detach().clone()
    with pytest.raises(InputError, match=r"the copy's layer '1.*' has an adapter, and it is merged already"):
        sparsifier.bake(average)
    assert torch.equal(average[1].weight, merged)
    assert ms.verify(sparsifier.bake(average.train())[1].weight != 0, PATTERN)


@pytest.mark.parametrize("in_place", [False, True])
def test_an_adapter_that_is_merged_before_masks_is_refused(in_place):
    model = model_that_merges("a subclass").eval()
    with pytest.raises(InputError, match="merged already"):
        Sparsifier(model, PATTERN, ms.solve, None, Fixed(), in_place=in_place)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_merged_layer_without_an_adapter_is_a_plain_one(in_place):
    """As loralib's with rank 0, which set `merged` in `eval()`."""
    model = torch.nn.Sequential(*[torch.nn.Linear(16, 16) for _ in range(3)])
    model[1].merged = True
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None, Fixed(), in_place=in_place)
    sparsifier.step()
    sparsifier.bake()
    assert ms.verify(model[1].weight != 0, PATTERN)


def test_other_code_that_trains_or_merges_reads_masked_weights():
    model = model_of("own")
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None, Fixed())

    def train(model):
        return model[1].weight

    def merge_norms(model):
        return model[1].weight

    for read in (train, merge_norms):
        assert torch.equal(read(model) != 0, sparsifier.masks["1.weight"])
