"""`torch.inference_mode` and `torch.autocast` of the caller: the same results, or an error that names the cause."""

import contextlib
import copy
import threading

import numpy as np
import pytest
import torch

import masksmith as ms
from masksmith._torch_modes import in_full_precision
from masksmith.calibration.gram import product_of

MODES = {
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


class Block(torch.nn.Module):
    """A residual layer; `mode` is the context in which it computes."""

    mode = contextlib.nullcontext

    def __init__(self):
        super().__init__()
        self.up, self.down = torch.nn.Linear(16, 32), torch.nn.Linear(32, 16)

    def forward(self, inputs):
        with self.mode():
            return inputs + self.down(torch.relu(self.up(inputs)))


def model_of(kind=Block):
    torch.manual_seed(0)
    return torch.nn.Sequential(kind(), kind())


def batches():
    return [torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]


def loss(model, batch):
    return model(batch).square().mean()


@pytest.mark.parametrize("mode", MODES)
def test_prune_gives_the_result_without_the_mode(mode):
    model, in_mode = model_of(), model_of()
    ms.prune(model, batches(), "2:4", tune_steps=4)
    with MODES[mode]():
        report = ms.prune(in_mode, batches(), "2:4", tune_steps=4)
    assert all(block.tuning.stopped is None for block in report.blocks)
    for one, other in zip(model.parameters(), in_mode.parameters(), strict=True):
        assert torch.equal(one, other)


def test_batches_of_inference_mode_do_not_stop_tuning():
    with torch.inference_mode():
        made_inside = [batch.clone() for batch in batches()]
    report = ms.prune(model_of(), made_inside, "2:4", tune_steps=4)
    assert all(block.tuning.stopped is None for block in report.blocks)


def test_parameters_of_inference_mode_are_refused_where_they_are_tuned():
    with torch.inference_mode():
        model = copy.deepcopy(model_of())
    with pytest.raises(ms.PruningError, match=r"0\.up\.weight: it was made under torch.inference_mode.*tune_steps=0"):
        ms.prune(model, batches(), "2:4")
    ms.prune(model, batches(), "2:4", tune_steps=0)
    assert ms.verify(model[0].up.weight != 0, "2:4")


@pytest.mark.parametrize(
    ("mode", "match"),
    [
        ("inference_mode", r"0: it returns tensors of torch.inference_mode\(\)"),
        ("autocast", r"0\.up\.weight: it got 0 token\(s\).*torch.autocast makes inside the block"),
    ],
)
def test_a_block_that_switches_the_mode_on_is_refused(mode, match):
    kind = type("ModalBlock", (Block,), {"mode": staticmethod(MODES[mode])})
    with pytest.raises(ms.PruningError, match=match):
        ms.prune(model_of(kind), batches(), "2:4")


def test_gradients_are_gathered_under_inference_mode():
    expected = ms.calibrate(model_of(), batches(), gather=["gradients"], loss=loss)
    model, made_outside = model_of(), batches()
    with torch.inference_mode():
        statistics = ms.calibrate(model, made_outside, gather=["gradients"], loss=loss)
        assert torch.is_inference_mode_enabled()
    for name in expected:
        assert (statistics[name].gradient == expected[name].gradient).all()
        assert expected[name].gradient.any()


def test_tensors_of_inference_mode_have_no_gradients():
    with torch.inference_mode():
        model, made_inside = copy.deepcopy(model_of()), [batch.clone() for batch in batches()]
    with pytest.raises(ms.ScoresError, match=r"'0\.up\.weight' was made under it"):
        ms.calibrate(model, batches(), gather=["gradients"], loss=loss)
    with pytest.raises(ms.ScoresError, match="a batch was made under it"):
        ms.calibrate(model_of(), made_inside, gather=["gradients"], loss=loss)
    with pytest.raises(ms.ScoresError, match=r"the loss has no gradient.*torch.no_grad"):
        ms.calibrate(model_of(), batches(), gather=["gradients"], loss=torch.no_grad()(loss))


def test_statistics_and_updates_are_summed_in_full_precision_under_autocast():
    inputs, weight = torch.randn(64, 16), torch.randn(8, 16)
    layer = torch.nn.Sequential(torch.nn.Linear(16, 8))
    gram, mask = (inputs.T @ inputs).double(), ms.solve(ms.magnitude(weight), "2:4").mask

    def results():
        statistics = ms.calibrate(layer, [inputs], gather=["gram"])
        return [
            torch.from_numpy(statistics["0.weight"].gram),
            ms.reconstruct(weight, mask, gram).weight,
            ms.admm(weight, gram, "2:4").weight,
            ms.sipp(weight, inputs),
            ms.pfp(weight, inputs),
        ]

    expected = results()
    with MODES["autocast"]():
        for one, other in zip(results(), expected, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("pattern", ["2:4", "transposable 2:4", "40%", "block 2x2 50%", "channels out 50%"])
@pytest.mark.parametrize(("dtype", "unit"), [("float32", 1e-41), ("float64", 1e-310), ("float64", 2.0**-970)])
def test_scores_that_a_thread_flushes_to_0_are_refused(pattern, dtype, unit):
    # A random order: in the order of `arange`, all transposable masks would keep the same sum.
    scores = np.random.default_rng(0).permutation(64).reshape(8, 8).astype(dtype) * np.array(unit, dtype)
    expected = ms.solve(scores / np.array(unit, dtype), pattern).mask
    assert torch.set_flush_denormal(True)
    try:
        with pytest.raises(ms.ScoresError, match=r"tensor 'w': .*subnormal.*set_flush_denormal\(False\)"):
            ms.solve(scores, pattern, name="w")
        ordinary = ms.solve(np.arange(64, dtype=dtype).reshape(8, 8), pattern)
    finally:
        torch.set_flush_denormal(False)
    assert ordinary.status == "optimal"
    assert np.array_equal(ms.solve(scores, pattern).mask, expected)


PRECISIONS = {
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "highest": lambda: torch.set_float32_matmul_precision("highest"),
    "TF32 of CUDA": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
}
if hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # torch 2.9 and later
    PRECISIONS |= {
        "CUDA": lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
        "mkldnn": lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),
        "every backend": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
    }


def precisions():
    """Return all settings of the precision of float32 products that this torch has."""
    backends = (torch.backends, torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))
    values = [getattr(backend, "fp32_precision", None) for backend in backends]
    for read in (torch.get_float32_matmul_precision, lambda: torch.backends.cuda.matmul.allow_tf32):
        try:
            values.append(read())
        except RuntimeError:  # set by backend
            values.append(None)
    return values


@pytest.fixture
def precision():
    """Return a function that sets a precision of `PRECISIONS`; the settings are full precision after the test."""
    yield lambda name: PRECISIONS[name]()
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        for module in (torch.backends, torch.backends.cuda.matmul, torch.backends.mkldnn.matmul):
            module.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("name", PRECISIONS)
def test_products_of_float32_are_in_full_precision_whatever_is_set(name, precision):
    inputs, weight = torch.randn(512, 128), torch.randn(64, 128)
    mask = ms.solve(ms.magnitude(weight), "2:4").mask
    layer = torch.nn.Sequential(torch.nn.Linear(128, 64))
    gram = (inputs.T @ inputs).double()

    def results():
        statistics = ms.calibrate(layer, [inputs], gather=["gram"])
        return [
            torch.from_numpy(statistics["0.weight"].gram),
            product_of(inputs),
            ms.reconstruct(weight, mask, gram).weight,
            ms.admm(weight, gram, "2:4", max_rounds=6).weight,
            ms.sipp(weight, inputs),
            ms.pfp(weight, inputs),
        ]

    expected = results()
    precision(name)
    before = precisions()
    for one, other in zip(results(), expected, strict=True):
        assert torch.equal(one, other)
    assert precisions() == before


def test_the_precision_is_restored_when_the_last_thread_is_done(precision):
    precision("medium")
    before = precisions()
    entered, leave = threading.Event(), threading.Event()

    def stay():
        with in_full_precision():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=stay)
    thread.start()
    entered.wait()
    with pytest.raises(ValueError, match="inside"), in_full_precision():
        raise ValueError("inside")
    inside = torch.get_float32_matmul_precision()
    leave.set()
    thread.join()
    assert (inside, precisions()) == ("highest", before)


def test_a_precision_that_comes_from_torchs_own_setting_still_follows_it(precision):
    if not hasattr(torch.backends, "fp32_precision"):
        return
    precision("every backend")
    with in_full_precision():
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    torch.backends.fp32_precision = "ieee"
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"
