"""`compute="sparse"`: all but the GPU's kernel, by a kernel in plain torch that stores 2 values of every 4."""

import copy
import gc

import pytest
import torch
import torch._dynamo

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.training import DensePhases, FallingN, Fixed, Refresh, Sparsifier, semi_structured

# torch.compile creates instances of autograd functions while it traces them.
compiles = pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning", r"ignore:The \.grad attribute:UserWarning"
)
PATTERN = "transposable 2:4"
WAITING = Refresh(every=3, wait=True)


class PlainKernel:
    """Two values and their two positions of every four entries, as the hardware stores them."""

    wrong = 0.0

    def __init__(self):
        self.packed = 0

    def unsupported_reason(self, weight):
        return None

    def pack(self, matrix):
        self.packed += 1
        groups = matrix.reshape(matrix.shape[0], -1, 4)
        assert int((groups != 0).sum(-1).max()) <= 2, "not 2:4 along this direction"
        places = (groups != 0).to(torch.int8).argsort(dim=-1, descending=True, stable=True)[..., :2]
        return groups.gather(-1, places), places, matrix.shape

    def linear(self, inputs, packed):
        values, places, shape = packed
        groups = torch.zeros(shape[0], shape[1] // 4, 4, dtype=values.dtype)
        matrix = groups.scatter(-1, places, values).reshape(shape)
        return torch.nn.functional.linear(inputs, matrix) * (1 + self.wrong)


@pytest.fixture
def kernel(monkeypatch):
    kernel = PlainKernel()
    monkeypatch.setattr(semi_structured, "KERNEL", lambda: kernel)
    return kernel


def network(dtype=torch.bfloat16, bias=True):
    torch.manual_seed(0)
    layers = [torch.nn.Linear(8, 64), torch.nn.Tanh(), torch.nn.Linear(64, 128, bias=bias), torch.nn.Tanh(),
              torch.nn.Linear(128, 64), torch.nn.Tanh(), torch.nn.Linear(64, 4)]  # fmt: skip
    return torch.nn.Sequential(*layers).to(dtype)


def run(compute, dtype=torch.bfloat16, steps=5, method="sr-ste", autocast=False, compiled=None, **options):
    model = network(dtype, bias=not autocast)
    sparsifier = Sparsifier(model, PATTERN, ms.solve, WAITING, method, compute=compute, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if sparsifier.method.needs_optimizer:
        sparsifier.watch(optimizer)
    forward = model if compiled is None else torch.compile(model, backend=compiled, fullgraph=True)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        inputs = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(step)).to(dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = forward(inputs).float().square().mean()
        loss.backward()
        optimizer.step()
        sparsifier.step()
        losses.append(loss.item())
    return model, sparsifier, losses


@pytest.mark.parametrize("method", ["fixed", "sr-ste", "masked-decay", "trainable-thresholds"])
def test_training_is_that_of_dense_products(kernel, method):
    expected, dense_sparsifier, expected_losses = run("dense", method=method)
    model, sparsifier, losses = run("sparse", method=method)
    assert losses == pytest.approx(expected_losses, rel=2e-2)
    for name, mask in dense_sparsifier.masks.items():
        assert float((sparsifier.masks[name] != mask).float().mean()) < 0.02
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0.1, atol=0.02)
    # In each forward pass both ways, and once both ways for the comparison with dense products.
    assert kernel.packed == 2 * (5 * 2 + 2)
    inputs = torch.randn(3, 8, dtype=torch.bfloat16)
    before = model(inputs)
    sparsifier.bake()
    torch.testing.assert_close(model(inputs), before, rtol=2e-2, atol=2e-2)
    assert type(model[2]) is torch.nn.Linear


def test_under_autocast_products_have_its_dtype(kernel):
    _, _, expected = run("dense", torch.float32, autocast=True)
    model, _, losses = run("sparse", torch.float32, autocast=True)
    assert losses == pytest.approx(expected, rel=2e-2)
    assert model[2].parametrizations.weight.original.grad.dtype == torch.float32


@compiles
@pytest.mark.parametrize("autocast", [False, True])
def test_compiled_products_are_in_one_graph(kernel, autocast):
    """Nor is anything compiled again at a refresh."""
    options = {"dtype": torch.float32 if autocast else torch.bfloat16, "autocast": autocast}
    _, _, expected = run("sparse", **options)
    graphs, packed = [], kernel.packed

    def backend(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    torch.compiler.reset()
    _, sparsifier, losses = run("sparse", compiled=backend, **options)
    assert losses == pytest.approx(expected, rel=1e-3)
    assert len(graphs) == 1
    assert kernel.packed == 2 * packed, "each product is that of the kernel"
    assert sum(record.sad for record in sparsifier.report().refreshes[1:]) > 0
    sparsifier.bake()


@compiles
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wrong": 0.05}, r"output of '2\.weight' by the 2:4 kernel differs"),
        ({"dtype": torch.float32}, "use torch.autocast"),
    ],
    ids=["wrong", "float32"],
)
def test_what_the_kernels_cannot_compute_is_refused_in_compiled_models(kernel, options, message):
    torch.compiler.reset()
    kernel.wrong = options.pop("wrong", 0.0)
    with pytest.raises(InputError, match=message):
        run("sparse", compiled="aot_eager", **options)


def test_values_that_change_are_packed_again(kernel):
    """Also where the weight's version does not show it, as with `weight.data`."""
    model, _, _ = run("sparse", steps=1)
    inputs = torch.randn(3, 8, dtype=torch.bfloat16)
    before = model(inputs)
    model[2].parametrizations.weight.original.data.mul_(-1)
    assert not torch.equal(model(inputs), before)


def test_dense_phases_are_dense_and_inference_packs_one_way(kernel):
    model = network()
    sparsifier = Sparsifier(model, PATTERN, ms.solve, WAITING, schedule=DensePhases(warm_up=1), compute="sparse")
    inputs = torch.randn(3, 8, dtype=torch.bfloat16)
    with torch.no_grad():
        assert torch.equal(model(inputs), network()(inputs))
        assert kernel.packed == 0
        sparsifier.step()
        model(inputs)
        packed = kernel.packed
        model(inputs)
        assert kernel.packed == packed + 2


def test_a_copy_computes_with_its_own_masks(kernel):
    model, sparsifier, _ = run("sparse", steps=1)
    copied = copy.deepcopy(model)
    inputs = torch.randn(3, 8, dtype=torch.bfloat16)
    before = copied(inputs)
    for value in model.parameters():
        value.data = torch.randn_like(value)
    sparsifier.refresh_now()
    assert torch.equal(copied(inputs), before)


def test_a_kernel_that_is_wrong_is_found_at_its_first_product(kernel):
    kernel.wrong = 0.05
    with pytest.raises(InputError, match=r"output of '2\.weight' by the 2:4 kernel differs from the dense one"):
        run("sparse")


FIRST_BATCHES = {"zeros": torch.zeros(2, 8), "norm overflows": torch.full((2, 8), 1e30), "empty": torch.zeros(0, 8)}


@pytest.mark.parametrize("first", FIRST_BATCHES)
def test_products_that_cannot_show_an_error_do_not_count_as_compared(kernel, first):
    model = network()
    model[0].bias.data.zero_()
    model[1] = torch.nn.Identity()
    Sparsifier(model, PATTERN, ms.solve, WAITING, compute="sparse")
    model(FIRST_BATCHES[first].bfloat16())
    kernel.wrong = 0.05
    with pytest.raises(InputError, match=r"output of '2\.weight' by the 2:4 kernel differs from the dense one"):
        model(torch.ones(2, 8, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (
            torch.float32,
            r"'2\.weight' cannot be computed by 2:4 kernels: the weight is torch.float32.*use torch.autocast",
        ),
        (torch.float64, r"'2\.weight' cannot be computed by 2:4 kernels: the weight is torch.float64"),
    ],
    ids=["float32", "float64"],
)
def test_other_dtypes_are_refused_at_the_first_product(kernel, dtype, message):
    with pytest.raises(InputError, match=message):
        run("sparse", dtype)


REFUSALS = {
    "2:4": ({"pattern": "2:4"}, "needs the pattern 'transposable 2:4'.*not 2:4"),
    "4:8": ({"pattern": "transposable 4:8"}, "not transposable 4:8"),
    "3:4": ({"pattern": "transposable 3:4"}, "not transposable 3:4"),
    "50%": ({"pattern": "50%"}, "not 50%"),
    "schedule": ({"schedule": FallingN(0, 5)}, "needs transposable 2:4 at every step"),
    "in place": ({"method": Fixed(), "in_place": True}, "in_place=True"),
    "shape": ({"layers": ["0", "2"]}, r"'0\.weight' cannot be computed.*\[64, 8\].*multiples of 64"),
    "other name": ({"compute": "fast"}, "compute='fast' is neither 'dense' nor 'sparse'"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_the_kernels_cannot_compute_is_refused(kernel, case):
    options, message = REFUSALS[case]
    model = network()
    with pytest.raises(InputError, match=message):
        Sparsifier(model, **({"pattern": PATTERN, "masks": ms.solve, "refresh": None, "compute": "sparse"} | options))
    assert type(model[2]) is torch.nn.Linear


def test_other_layers_are_refused(kernel):
    model = torch.nn.Sequential(*(torch.nn.Conv2d(64, 64, 1) for _ in range(3)))
    with pytest.raises(InputError, match=r"'1\.weight' cannot be computed by 2:4 kernels: Conv2d does not compute"):
        Sparsifier(model, PATTERN, ms.solve, None, compute="sparse")


def test_the_cpu_has_no_such_kernel():
    with pytest.raises(InputError, match=r"'2\.weight' cannot be computed by 2:4 kernels: it is on the device cpu"):
        Sparsifier(network(), PATTERN, ms.solve, None, compute="sparse")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_products_are_those_of_dense_weights():
    model = network().cuda()
    inputs = torch.randn(64, 8, dtype=torch.bfloat16, device="cuda")
    Sparsifier(model, PATTERN, ms.solve, None, compute="sparse")
    output = model(inputs)
    output.square().mean().backward()
    plain = network().cuda()
    for place in (2, 4):
        with torch.no_grad():
            plain[place].weight.copy_(model[place].weight)
    expected = plain(inputs)
    expected.square().mean().backward()
    torch.testing.assert_close(output, expected, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(model[0].weight.grad, plain[0].weight.grad, rtol=5e-2, atol=2e-2)


def test_products_of_deleted_models_are_freed(kernel):
    before = set(semi_structured._products)
    model, sparsifier, _ = run("sparse", steps=1)
    keys = set(semi_structured._products) - before
    assert keys
    loss = model(torch.ones(2, 8, dtype=torch.bfloat16)).sum()
    del model, sparsifier
    gc.collect()
    loss.backward()
    del loss
    gc.collect()
    assert not keys & set(semi_structured._products)
