"""Weights that are replaced, wrapped or taken away after they were masked: followed, or refused by name."""

import pytest
import torch
from support.training_loop import WAITING, loss_of, perceptron, train
from torch.nn.utils import parametrize

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.training import Fixed, Refresh, Sparsifier, StraightThrough

# torch.compile creates instances of autograd functions while it traces them.
compiles = pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning", r"ignore:The \.grad attribute:UserWarning"
)
EACH_STEP = Refresh(every=1, wait=True)


def best_mask(weight, pattern="2:4"):
    return ms.solve(weight.detach().abs(), pattern).mask


def replaced(model):
    torch.manual_seed(1)
    return {name: torch.randn_like(value) for name, value in model.state_dict().items()}


def test_masks_follow_weights_that_a_state_dict_assigns(model):
    sparsifier = Sparsifier(model, "2:4", ms.solve, WAITING)
    model.load_state_dict(replaced(model), assign=True)
    sparsifier.refresh_now()
    weight = model[2].parametrizations.weight.original
    assert torch.equal(sparsifier.masks["2.weight"], best_mask(weight))
    assert torch.equal(model[2].weight, weight * best_mask(weight))


def test_masks_in_place_follow_weights_that_a_state_dict_assigns(model):
    sparsifier = Sparsifier(model, "2:4", ms.solve, None, Fixed(), in_place=True)
    mask = sparsifier.masks["2.weight"]
    model.load_state_dict(replaced(model), assign=True)
    assert sparsifier.report().layers[0].density == 1.0, "the report looks at the weights"
    train(model, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), sparsifier, 2)
    assert not model[2].weight[~mask].any()
    assert not model[2].weight.grad[~mask].any(), "the gradient of the new parameter is masked"
    assert sparsifier.report().layers[0].density == 0.5
    sparsifier.bake()
    assert ms.verify(model[2].weight != 0, "2:4")


@compiles
def test_a_block_that_is_compiled_later_is_followed(model):
    block = torch.nn.Sequential(model[2], model[3])
    whole = torch.nn.Sequential(model[0], block, model[6])
    sparsifier = Sparsifier(whole, "2:4", ms.solve, EACH_STEP, StraightThrough(), layers="1.0")
    whole[1] = torch.compile(block, backend="eager")
    train(whole, torch.optim.SGD(whole.parameters(), 0.5), sparsifier, 3)
    assert torch.equal(sparsifier.masks["1.0.weight"], best_mask(block[0].parametrizations.weight.original))


@compiles
def test_masks_are_compiled_once_and_refreshed_without_compiling_again(model):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    sparsifier = Sparsifier(model, "2:4", ms.solve, EACH_STEP, StraightThrough())
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    train(compiled, torch.optim.SGD(model.parameters(), 0.5), sparsifier, 5)
    assert len(graphs) == 1
    assert sum(record.sad for record in sparsifier.report().refreshes) > 0
    inputs = torch.randn(3, 8)
    assert torch.equal(compiled(inputs), model(inputs))


@compiles
@pytest.mark.parametrize(
    "options",
    ["sr-ste decay={}", pytest.param("trainable-thresholds strength={}", marks=pytest.mark.slow)],
    ids=lambda each: each[:6],
)
def test_models_with_other_strengths_are_compiled_in_one_process(options):
    torch.compiler.reset()
    for strength in (0.1, 0.3, 0.5):
        model = perceptron()
        Sparsifier(model, "2:4", ms.solve, None, options.format(strength))
        gradients = []
        for run in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
            model.zero_grad()
            loss_of(run).backward()
            gradients.append(model[2].parametrizations.weight.original.grad.clone())
        torch.testing.assert_close(*gradients)


def remove_mask(model):
    del model[2].weight_masking


def parametrize_it(model):
    parametrize.register_parametrization(model[2], "weight", torch.nn.Identity())


def replace_module(model):
    model[2] = torch.nn.Linear(32, 32)


def empty_it(model):
    model[2]._parameters["weight"].ds_id = 0
    model[2]._parameters["weight"].data = torch.empty(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove_mask, "the mask of '2.weight' was removed from layer '2'"),
        (parametrize_it, "'2.weight' is missing: it is parametrized already"),
        (replace_module, "layer '2' was replaced after it was masked"),
        (empty_it, "'2.weight' cannot be masked any more: it is empty, as DeepSpeed ZeRO-3 .* ZeRO-2"),
    ],
)
def test_what_cannot_be_followed_is_refused_at_the_next_step(model, change, message):
    sparsifier = Sparsifier(model, "2:4", ms.solve, Refresh(every=1000))
    sparsifier.step()
    change(model)
    with pytest.raises(InputError, match=message):
        sparsifier.step()
    with pytest.raises(InputError, match=message):
        sparsifier.bake()


def restore_class(model):
    model[2].__class__ = torch.nn.Linear


@pytest.mark.parametrize("change", [remove_mask, replace_module, restore_class])
def test_the_report_of_a_layer_that_became_dense_says_so(model, change):
    sparsifier = Sparsifier(model, "2:4", ms.solve, Refresh(every=1000))
    assert sparsifier.report().layers[0].density == 0.5
    change(model)
    assert float((model[2].weight != 0).float().mean()) == 1.0
    assert sparsifier.report().layers[0].density == 1.0
    for act in (sparsifier.plain_state_dict, lambda: sparsifier.mask_state_dict({}, model)):
        with pytest.raises(InputError, match=r"'2'|'2\.weight'"):
            act()


def test_masks_stay_while_a_model_has_no_values(model):
    sparsifier = Sparsifier(model, "2:4", ms.solve, EACH_STEP)
    masks = sparsifier.masks
    model.to("meta")
    with pytest.raises(InputError, match="it is on the meta device, without values"):
        sparsifier.step()
    model.to_empty(device="cpu")
    model.load_state_dict(replaced(model))
    assert all(torch.equal(mask, masks[name]) for name, mask in sparsifier.masks.items())
    sparsifier.step()
    assert torch.equal(sparsifier.masks["2.weight"], best_mask(model[2].parametrizations.weight.original))


def test_a_shared_weight_that_is_shared_no_more_is_refused():
    model = perceptron()
    model[4].weight = model[2].weight
    sparsifier = Sparsifier(model, "2:4", ms.solve, None)
    model.load_state_dict(replaced(model), assign=True)
    with pytest.raises(InputError, match=r"layer '4' no longer shares the weight '2.weight'"):
        sparsifier.step()


def test_parameters_keep_names_order_and_identity_through_attach_and_bake(model):
    before = dict(model.named_parameters())
    optimizer = torch.optim.Adam(model.parameters())
    sparsifier = Sparsifier(model, "2:4", ms.solve, WAITING)
    assert list(before) == [name for name, _ in model.named_parameters()] == list(model.state_dict())
    train(model, optimizer, sparsifier, 2)
    saved = optimizer.state_dict()
    sparsifier.bake()
    after = dict(model.named_parameters())
    assert list(before) == list(after)
    assert all(after[name] is parameter for name, parameter in before.items())
    assert type(model[2]) is torch.nn.Linear
    other = torch.optim.Adam(model.parameters())
    other.load_state_dict(saved)
    model(torch.randn(2, 8)).sum().backward()
    other.step()


@pytest.mark.parametrize("saved_compiled", [True, False])
def test_compiled_and_plain_models_read_each_others_state(saved_compiled):
    def begin(is_compiled, seed):
        model = perceptron(seed=seed)
        return Sparsifier(torch.compile(model, backend="eager") if is_compiled else model, "2:4", ms.solve, None)

    saved = begin(saved_compiled, 0)
    other = begin(not saved_compiled, 1)
    other.load_state_dict(saved.state_dict())
    assert list(saved.masks) == ["2.weight", "4.weight"]
    assert all(torch.equal(mask, saved.masks[name]) for name, mask in other.masks.items())
