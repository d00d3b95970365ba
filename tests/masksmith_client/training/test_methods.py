"""What methods do to weights and gradients, against their formulas."""

import math

import pytest
import torch
from support.training_loop import WAITING, loss_of, obeys, perceptron, train

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.training import (
    SRSTE,
    Fixed,
    MaskedDecay,
    PruneAndGrow,
    Sparsifier,
    StraightThrough,
    TrainableThresholds,
)
from masksmith_client.training.methods.trainable_thresholds import _step_derivative

PATTERN = "transposable 2:4"
METHODS = [
    Fixed(),
    StraightThrough(),
    SRSTE(0.01),
    MaskedDecay(0.01),
    PruneAndGrow(until=40),
    TrainableThresholds(1e-4),
]


def masked(method, **options):
    model = perceptron()
    sparsifier = Sparsifier(model, PATTERN, ms.solve, WAITING, method, **options)
    return model, sparsifier


def dense(model, path="2"):
    return model.get_submodule(path).parametrizations.weight.original


def gradient_of_masked_weight(model, path="2"):
    """The gradient of the weight that the layer computes with, by a twin whose weights are simply those."""
    twin = perceptron()
    twin.load_state_dict(plain_state(model))
    loss_of(twin).backward()
    return twin.get_submodule(path).weight.grad


def plain_state(model):
    """The weights and biases that the layers compute with."""
    layers = {path: layer for path, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    state = {f"{path}.weight": layer.weight.detach() for path, layer in layers.items()}
    return state | {f"{path}.bias": layer.bias.detach() for path, layer in layers.items()}


@pytest.mark.parametrize("method", METHODS[:3], ids=repr)
def test_the_dense_weight_receives_the_methods_gradient(method):
    model, sparsifier = masked(method)
    expected = gradient_of_masked_weight(model)
    mask = sparsifier.masks["2.weight"]
    if isinstance(method, Fixed):
        expected = expected * mask
    if isinstance(method, SRSTE):
        expected = expected + 0.01 * dense(model) * ~mask
    loss_of(model).backward()
    torch.testing.assert_close(dense(model).grad, expected)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_both_directions_use_the_same_transposable_weight(method):
    """The output and the input's gradient of a layer are products with its mask times its dense weight."""
    model, sparsifier = masked(method)
    layer, mask = model[2], sparsifier.masks["2.weight"]
    inputs = torch.randn(5, 32, requires_grad=True)
    outputs = layer(inputs)
    sparse = dense(model).detach() * mask
    torch.testing.assert_close(outputs, inputs @ sparse.T + layer.bias)
    towards = torch.randn(5, 32)
    outputs.backward(towards)
    torch.testing.assert_close(inputs.grad, towards @ sparse)
    if not isinstance(method, TrainableThresholds):
        assert ms.verify(sparse != 0, PATTERN)
        assert ms.verify((sparse != 0).T, "2:4")


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_every_method_learns_under_masks_that_obey(method):
    model, sparsifier = masked(method)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    sparsifier.watch(optimizer)
    before = loss_of(model).item()
    allowed = "transposable <=2:4" if isinstance(method, TrainableThresholds) else PATTERN
    after = train(model, optimizer, sparsifier, 60, lambda step: obeys(sparsifier, allowed) or pytest.fail(str(step)))
    assert after < 0.8 * before
    baked = sparsifier.bake()
    assert sorted(baked.state_dict()) == sorted(perceptron().state_dict())
    assert all(ms.verify(baked.get_submodule(path).weight != 0, "transposable <=2:4") for path in ("2", "4"))


def test_masked_decay_is_added_once_a_step_to_the_gradient_the_optimizer_sees():
    model, sparsifier = masked(MaskedDecay(0.01))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    sparsifier.watch(optimizer)
    start, mask = dense(model).detach().clone(), sparsifier.masks["2.weight"]
    expected = 2 * gradient_of_masked_weight(model) + 0.01 * start * ~mask
    loss_of(model).backward()
    loss_of(model).backward()
    optimizer.step()
    torch.testing.assert_close(start - dense(model).detach(), expected, rtol=1e-4, atol=1e-6)


def test_sr_ste_steadies_the_masks():
    flips = {}
    for decay in (0.0, 0.05):
        model, sparsifier = masked(SRSTE(decay))
        train(model, torch.optim.SGD(model.parameters(), lr=0.5), sparsifier, 80)
        flips[decay] = sum(record.sad for record in sparsifier.report().refreshes)
    assert 0 < flips[0.05] < flips[0.0]


def test_grown_entries_are_those_with_the_largest_gradient_and_begin_at_zero():
    """Without a pattern's constraints the exact search must give what RigL would."""
    model = perceptron()
    sparsifier = Sparsifier(model, "25%", ms.solve, WAITING, PruneAndGrow(until=100, fraction=0.4))
    mask = sparsifier.masks["2.weight"]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, optimizer, sparsifier, 3)
    optimizer.zero_grad()
    gradient = gradient_of_masked_weight(model).abs()
    loss_of(model).backward()
    optimizer.step()
    weight = dense(model).detach().clone()
    sparsifier.step()
    share = 0.4 / 2 * (1 + math.cos(math.pi * 4 / 100))
    count = int(share * int(mask.sum()))
    survivors = mask.clone().view(-1)
    survivors[weight.abs().masked_fill(~mask, math.inf).view(-1).topk(count, largest=False).indices] = False
    expected = survivors.clone()
    expected[gradient.view(-1).masked_fill(survivors, -1).topk(count).indices] = True
    now = sparsifier.masks["2.weight"]
    assert torch.equal(now.view(-1), expected)
    assert (dense(model)[now & ~mask] == 0).all()
    assert (now & ~mask).any()


def test_under_a_pattern_every_survivor_stays():
    model, sparsifier = masked(PruneAndGrow(until=10**9, fraction=0.5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    mask = sparsifier.masks["2.weight"]
    train(model, optimizer, sparsifier, 4)
    sizes = dense(model).detach().abs()[mask].sort().values
    # Settling has zeroed grown entries only, so the survivors' sizes are those that the search saw.
    lost = mask & ~sparsifier.masks["2.weight"]
    assert 0 < lost.sum() <= len(sizes) // 2
    assert dense(model).detach().abs()[lost].max() <= sizes[len(sizes) // 2]
    assert obeys(sparsifier, PATTERN)


def test_prune_and_grow_refuses_blocks_and_a_refresh_without_gradient():
    with pytest.raises(InputError, match="block 8x8 50% is neither"):
        Sparsifier(perceptron(), "block 8x8 50%", ms.solve, method=PruneAndGrow(until=10))
    _, sparsifier = masked(PruneAndGrow(until=10))
    with pytest.raises(InputError, match=r"'2.weight' has no gradient to select by"):
        sparsifier.refresh_now()


def test_thresholds_receive_the_estimators_gradient():
    """Against autograd of a smooth stand-in whose derivative is the estimator."""
    model, _ = masked(TrainableThresholds(strength=1e-3))
    masking = model[2].parametrizations.weight[0]
    masking.threshold.data.uniform_(0.0, 0.1)
    weight, threshold = dense(model).detach().clone().requires_grad_(), masking.threshold.detach().clone()
    threshold.requires_grad_()
    over = weight.abs() - threshold
    size = over.detach().abs()
    slope = torch.where(size <= 0.4, 2 - 4 * size, torch.where(size <= 1, 0.4, 0.0))
    soft = (over.detach() > 0) + slope * (over - over.detach())
    stand_in = masking.mask * weight * soft
    towards = torch.randn(32, 32)
    (stand_in.mul(towards).sum() + 1e-3 * torch.exp(-threshold).sum()).backward()
    model[2].weight.backward(towards)
    torch.testing.assert_close(model[2].weight, stand_in)
    torch.testing.assert_close(dense(model).grad, weight.grad)
    torch.testing.assert_close(masking.threshold.grad, threshold.grad)


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_estimator_does_not_depend_on_the_default_dtype(dtype, default):
    excess = torch.linspace(-1.5, 1.5, 13, dtype=dtype)
    torch.set_default_dtype(default)
    try:
        slope = _step_derivative(excess)
    finally:
        torch.set_default_dtype(torch.float32)
    assert slope.dtype == (torch.float32 if dtype is torch.bfloat16 else dtype)
    size = excess.double().abs()
    expected = torch.where(size <= 0.4, 2 - 4 * size, 0.4 * (size <= 1).double())
    torch.testing.assert_close(
        slope.double(), expected, rtol=torch.finfo(slope.dtype).eps, atol=1e-2 * (dtype is torch.bfloat16)
    )


def test_thresholds_prune_inside_the_pattern():
    model, sparsifier = masked(TrainableThresholds(strength=3e-3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    sparsifier.watch(optimizer)
    train(model, optimizer, sparsifier, 60)
    assert all(0.02 < layer.density < 0.49 for layer in sparsifier.report().layers)
    assert obeys(sparsifier, "transposable <=2:4")


def test_methods_that_need_the_optimizer_say_so():
    _, sparsifier = masked(MaskedDecay())
    with pytest.raises(InputError, match=r"MaskedDecay needs the optimizer: pass optimizer=, or call watch\(\)"):
        sparsifier.step()
    model = perceptron()
    old = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = Sparsifier(model, PATTERN, ms.solve, WAITING, TrainableThresholds())
    with pytest.raises(InputError, match=r"lacks the threshold of '2.weight'"):
        sparsifier.watch(old)


@pytest.mark.parametrize("method", [Fixed(), PruneAndGrow(until=40)], ids=lambda method: type(method).__name__)
def test_masks_in_place_leave_the_parameters_names_alone(method):
    model, sparsifier = masked(method, in_place=True)
    names = list(model.state_dict())
    train(model, torch.optim.Adam(model.parameters(), 5e-3), sparsifier, 20)
    assert list(model.state_dict()) == names
    for name, mask in sparsifier.masks.items():
        assert not model.get_parameter(name)[~mask].any()
    assert obeys(sparsifier, PATTERN)
    sparsifier.bake()
    loss_of(model).backward()
    assert model[2].weight.grad.all()


def test_masks_in_place_are_refused_where_pruned_weights_train():
    with pytest.raises(InputError, match="SRSTE also trains the pruned weights"):
        masked(SRSTE(), in_place=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SRSTE(-1.0), "decay=-1.0 must be a finite number of at least 0"),
        (lambda: MaskedDecay(float("nan")), "decay=nan"),
        (lambda: SRSTE(10**400), "decay=<an integer of 1329 bits> must be a finite number of at least 0"),
        (lambda: SRSTE(-(10**9999)), "decay=<an integer of 33216 bits> must be"),
        (lambda: PruneAndGrow(until=-(10**9999)), "until=<an integer of 33216 bits> must be"),
        (lambda: PruneAndGrow(until=0), "until=0 must be a whole number of at least 1"),
        (lambda: PruneAndGrow(until=5, fraction=1.5), r"fraction=1.5 must lie in \(0, 1\]"),
        (lambda: TrainableThresholds(-1), "strength=-1"),
    ],
)
def test_numbers_out_of_range_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_mixed_precision_trains():
    model, sparsifier = masked(SRSTE())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss_of(model).backward()
    optimizer.step()
    sparsifier.step()
    assert dense(model).grad.dtype == torch.float32
