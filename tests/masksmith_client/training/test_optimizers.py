"""Methods that change gradients before the optimizer's step: fused, scaled, wrapped and several optimizers."""

import accelerate
import pytest
import torch
from support.training_loop import perceptron

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.training import SRSTE, MaskedDecay, Sparsifier


def masked(**options):
    model = perceptron()
    sparsifier = Sparsifier(model, "2:4", ms.solve, None, MaskedDecay(decay=1.0), **options)
    return model, sparsifier


def weights(model):
    return [model[place].parametrizations.weight.original for place in (2, 4)]


def no_gradient(model):
    return (model(torch.randn(4, 8)) * 0).sum()


def decayed(before, model, sparsifier):
    """Return the share by which pruned weights have shrunk, layer by layer."""
    masks = sparsifier.masks.values()
    changes = zip(before, weights(model), masks, strict=True)
    return [float(((old - new) / old)[~mask].detach().mean()) for old, new, mask in changes]


@pytest.mark.parametrize("options", [{}, {"foreach": True}, {"fused": True}])
@pytest.mark.parametrize("unscale", [False, True])
def test_the_decay_does_not_depend_on_the_scale_of_gradients(options, unscale):
    model, sparsifier = masked()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, **options)
    sparsifier.watch(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = [weight.detach().clone() for weight in weights(model)]
    scaler.scale(no_gradient(model)).backward()
    if unscale:
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    assert decayed(before, model, sparsifier) == pytest.approx([0.1, 0.1], rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_decay_is_not_computed_by_way_of_the_weight_times_the_scale(dtype):
    """In float16, `decay * scale * W` is finite here, and `scale * W` is not."""
    model = perceptron().to(dtype)
    sparsifier = Sparsifier(model, "2:4", ms.solve, None, MaskedDecay(decay=1e-2))
    for weight in weights(model):
        weight.data.copy_(2 * weight.sign())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    sparsifier.watch(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    before = [weight.detach().clone() for weight in weights(model)]
    scaler.scale((model(torch.randn(4, 8, dtype=dtype)).float() * 0).sum()).backward()
    scaler.step(optimizer)  # It also divides the gradients by the scale.
    for weight, old, mask in zip(weights(model), before, sparsifier.masks.values(), strict=True):
        assert weight.isfinite().all()
        torch.testing.assert_close(weight.grad, 0.01 * old * ~mask)


@pytest.mark.parametrize("fused", [False, True])
def test_pruned_weights_shrink_where_the_optimizer_ascends_gradients(fused):
    model, sparsifier = masked()
    groups = [{"params": [weights(model)[0]], "maximize": True}, {"params": [weights(model)[1]], "lr": 0.2}]
    optimizer = torch.optim.SGD(groups, lr=0.1, fused=fused)
    sparsifier.watch(optimizer)
    before = [weight.detach().clone() for weight in weights(model)]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(no_gradient(model)).backward()
    scaler.step(optimizer)
    assert decayed(before, model, sparsifier) == pytest.approx([0.1, 0.2], rel=1e-4)


def test_an_optimizer_that_ascends_gradients_is_refused_by_the_decay_of_backward_passes():
    model = perceptron()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, maximize=True)
    with pytest.raises(InputError, match=r"SRSTE would make the pruned entries of '2.weight' grow.*use MaskedDecay"):
        Sparsifier(model, "2:4", ms.solve, None, SRSTE(), optimizer=optimizer)
    sparsifier = Sparsifier(model, "2:4", ms.solve, None, SRSTE())
    with pytest.raises(InputError, match="maximize=True"):
        sparsifier.watch(optimizer)


def test_ascent_that_is_set_after_watching_is_refused_at_the_next_step():
    model = perceptron()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Sparsifier(model, "2:4", ms.solve, None, SRSTE(), optimizer=optimizer)
    no_gradient(model).backward()
    optimizer.step()
    optimizer.param_groups[0]["maximize"] = True
    before = [weight.detach().clone() for weight in weights(model)]
    with pytest.raises(InputError, match=r"SRSTE would make the pruned entries of '2.weight' grow.*use MaskedDecay"):
        optimizer.step()
    assert all(torch.equal(weight, old) for weight, old in zip(weights(model), before, strict=True))


@pytest.mark.parametrize(("method", "decays"), [(SRSTE(1.0), 2), (MaskedDecay(1.0), 1)])
def test_a_layer_that_is_called_twice_has_two_decays_of_sr_ste_and_one_masked_decay(method, decays):
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 8)
    model = torch.nn.Sequential(layer, torch.nn.Tanh(), layer)
    sparsifier = Sparsifier(model, "2:4", ms.solve, None, method, layers="0")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier.watch(optimizer)
    weight = layer.parametrizations.weight.original
    before, pruned = weight.detach().clone(), ~sparsifier.masks["0.weight"]
    no_gradient(model).backward()
    optimizer.step()
    torch.testing.assert_close(weight.detach()[pruned], (1 - 0.1 * decays) * before[pruned])


def test_every_watched_optimizer_decays_the_weights_that_it_holds():
    model, sparsifier = masked()
    first, second = (
        torch.optim.SGD([weight], lr=rate) for weight, rate in zip(weights(model), (0.1, 0.2), strict=True)
    )
    sparsifier.watch(first)
    sparsifier.watch(second)
    sparsifier.watch(second)
    before = [weight.detach().clone() for weight in weights(model)]
    no_gradient(model).backward()
    first.step()
    assert decayed(before, model, sparsifier) == pytest.approx([0.1, 0.0], rel=1e-4)
    second.step()
    assert decayed(before, model, sparsifier) == pytest.approx([0.1, 0.2], rel=1e-4)
    sparsifier.step()


def test_the_optimizer_of_another_model_may_be_among_several_but_not_alone():
    model, sparsifier = masked()
    own = torch.optim.SGD(model.parameters(), lr=0.1)
    foreign = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1)
    sparsifier.watch(foreign, own)
    with pytest.raises(InputError, match="SGD contains no masked weight"):
        sparsifier.watch(foreign)
    fresh = perceptron()
    with pytest.raises(InputError, match="SGD contains no masked weight"):
        Sparsifier(fresh, "2:4", ms.solve, None, MaskedDecay(), optimizer=foreign)
    assert type(fresh[2]) is torch.nn.Linear


def test_a_masked_weight_without_a_watched_optimizer_is_named_at_the_step():
    model, sparsifier = masked()
    sparsifier.watch(torch.optim.SGD([weights(model)[0]], lr=0.1))
    with pytest.raises(InputError, match=r"no watched optimizer holds '4.weight': call watch\(\)"):
        sparsifier.step()
    weights(model)[1].requires_grad_(False)
    sparsifier.step()


def test_the_optimizer_inside_accelerates_wrapper_is_watched():
    model, sparsifier = masked()
    optimizer = accelerate.Accelerator(cpu=True).prepare(torch.optim.SGD(model.parameters(), lr=0.1))
    sparsifier.watch(optimizer)
    before = [weight.detach().clone() for weight in weights(model)]
    no_gradient(model).backward()
    optimizer.step()
    assert decayed(before, model, sparsifier) == pytest.approx([0.1, 0.1], rel=1e-4)


def test_something_that_is_no_optimizer_is_refused():
    _, sparsifier = masked()
    with pytest.raises(InputError, match="'adam' is not a torch optimizer"):
        sparsifier.watch("adam")
