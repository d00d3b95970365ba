"""Measuring for real, on small shapes: wrong numbers are never timed, and one kernel's fault is its own."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.gpus import mock_current_device

import masksmith as ms
from masksmith.benchmark import BenchmarkError, Declaration, Layer, Packed, Report, Support, benchmark, own_kernels
from masksmith.benchmark.cases import Case
from masksmith.benchmark.host_clock import HostClock
from masksmith.benchmark.method import Bench, prepare, speedup, summary
from masksmith.benchmark.operands import reference
from masksmith.benchmark.peaks import Peaks


class Own:
    """A kernel made of a function of the operand."""

    def __init__(self, name, make, obstacle=None):
        self.declaration = Declaration(name, "for a test", {"cpu": Support({"float32": (1, 1)})})
        self._make, self._obstacle = make, obstacle

    def obstacle(self, device):
        return self._obstacle

    def pack(self, operand):
        return Packed({"product": self._make(operand)}, 1)


def measured(*kernels, **options):
    registry = {"dense": own_kernels()["dense"]} | {kernel.declaration.name: kernel for kernel in kernels}
    arguments = {"batches": [4], "rounds": 3, "curves": False} | options
    return benchmark("32x64", "2:4", registry=registry, **arguments).results


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_every_kernel_of_this_machine_gives_right_numbers(dtype, direction):
    patterns = ["2:4", "transposable 2:4", "<=2:4", "block 16x16 50%", "10%", "double 2:4"]
    shape, options = "64x96", {"dtypes": [dtype], "directions": [direction], "rounds": 2, "curves": False}
    report = benchmark(shape, patterns, batches=[1, 40], **options)
    assert not report.failures
    assert not report.skipped
    kernels = {one.kernel for result in report.results for one in result.measured}
    sparse = {"csr", "bsr", "scipy-csr", "nm-gather"} if dtype in ("float32", "float64") else set()
    assert kernels == {"dense", "dense-zeros"} | sparse
    for result in report.results:
        for one in result.measured:
            assert one.error <= 1.0
            assert one.eager.p20_s <= one.eager.median_s <= one.eager.p80_s
            assert one.pack_s > 0
            assert one.graph is None


def test_a_kernel_that_ignores_the_mask_is_found_out_before_it_is_timed():
    [result] = measured(Own("cheat", lambda operand: lambda x: x @ operand.unmasked.t()))
    cheat = next(one for one in result.measurements if one.kernel == "cheat")
    assert cheat.outcome == "failed"
    assert "wrong result" in cheat.reason
    assert cheat.eager is None
    assert result.of("dense") is not None


def test_less_than_the_last_bits_of_half_precision_is_found_too():
    def sloppy(operand):
        return lambda x: (x.bfloat16() @ operand.matrix.bfloat16().t()).float()

    [result] = measured(Own("sloppy", sloppy))
    assert [one.outcome for one in result.measurements] == ["measured", "failed"]


def test_a_kernel_that_raises_does_not_stop_the_others():
    def bad(operand):
        raise RuntimeError("no luck today")

    results = measured(Own("a-bad", bad), Own("good", lambda operand: lambda x: x @ operand.matrix.t()), batches=[1, 2])
    for result in results:
        dense, failed, good = result.measurements
        assert (dense.outcome, failed.outcome, good.outcome) == ("measured", "failed", "measured")
        assert failed.reason == "RuntimeError: no luck today"
        assert good.speedup > 0


def test_only_the_baselines_do_the_work_of_a_dense_product():
    kernels = [own_kernels()["dense"], *(Own(name, lambda operand: lambda x: x @ operand.matrix.t()) for name in
                                         ("dense-own", "own"))]  # fmt: skip
    bench = Bench({kernel.declaration.name: kernel for kernel in kernels}, rounds=1)
    bench._peaks["float32"] = Peaks(bytes_per_s=1e30, flops_per_s=1.0)
    result = bench.measure(Case(Layer("a", 32, 64), 4, "float32", "2:4", "forward", "asked", tuple(bench.kernels)))
    least_s = {one.kernel: one.roofline * one.timing.median_s for one in result.measurements}
    dense_flops = 2 * 4 * 32 * 64
    assert least_s == pytest.approx({"dense": dense_flops, "dense-own": dense_flops / 2, "own": dense_flops / 2})


def test_a_replay_has_no_speed_up_over_an_eager_call():
    class Clock:
        def time(self, runs, rounds, after_round):
            return {"dense": [4.0], "own": [2.0]}, {"own": [0.5]}

    own = Own("own", lambda operand: lambda x: x @ operand.matrix.t())
    bench = Bench({"dense": own_kernels()["dense"], "own": own}, rounds=1)
    bench._peaks["float32"] = Peaks(bytes_per_s=1e30, flops_per_s=1.0)
    bench.clock = Clock()
    result = bench.measure(Case(Layer("a", 32, 64), 4, "float32", "2:4", "forward", "asked", tuple(bench.kernels)))
    assert (result.of("own").speedup, result.of("own").graph.median_s) == (2.0, 0.5)
    assert [gain.value for _, gain in result.gains] == [2.0]


def test_a_case_runs_while_its_device_is_the_current_one(monkeypatch):
    seen = []
    current = mock_current_device(monkeypatch)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1234"))
    monkeypatch.setattr(Bench, "_measure", lambda bench, case: seen.append(current()))
    Bench({}, "cuda:1").measure(None)
    Bench({}, "cpu").measure(None)
    assert seen == ["cuda:1", None]


def test_packing_and_tuning_of_a_gpu_end_when_the_gpu_has_done_their_work(monkeypatch):
    log = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append(str(device)))

    class Kernel:
        declaration = Declaration("own", "for a test", {"cuda": Support({"float32": (1, 1)})})

        def pack(self, operand):
            log.append("pack")
            return Packed({"product": lambda x: x}, 1, tune=lambda: {"tuned": str(log.append("tune"))})

    prepare(Kernel(), SimpleNamespace(sample=SimpleNamespace(device=torch.device("cuda:1"))), HostClock())
    assert log[:5] == ["cuda:1", "pack", "cuda:1", "tune", "cuda:1"]


def test_throttling_during_the_rounds_is_reported():
    own = Own("own", lambda operand: lambda x: x @ operand.matrix.t())
    bench = Bench({"dense": own_kernels()["dense"], "own": own}, rounds=3)
    states = iter([[], [], ["power cap"], []])
    bench._monitor = SimpleNamespace(read=lambda: {"sm_clock_mhz": 1, "throttled": next(states)})
    result = bench.measure(Case(Layer("a", 32, 64), 4, "float32", "2:4", "forward", "asked", tuple(bench.kernels)))
    assert result.conditions["throttled"] == ["power cap"]
    assert list(states) == []


@pytest.fixture
def allowed_tf32():
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.usefixtures("allowed_tf32")
def test_a_measurement_restores_the_settings_of_torch():
    seen = []

    def look(operand):
        seen.append(torch.backends.cuda.matmul.allow_tf32)
        return lambda x: x @ operand.matrix.t()

    [result] = measured(Own("look", look))
    assert seen == [False]
    assert result.machine["tf32"] is False
    assert torch.backends.cuda.matmul.allow_tf32


def test_a_product_of_the_wrong_shape_or_with_nan_is_wrong():
    turned = Own("turned", lambda operand: lambda x: (x @ operand.matrix.t()).t())
    empty = Own("void", lambda operand: lambda x: torch.full((4, 32), float("nan")))
    [result] = measured(turned, empty)
    assert [one.outcome for one in result.measurements] == ["measured", "failed", "failed"]
    assert {one.reason for one in result.measurements[1:]} == {
        "wrong result: it contains NaN, or it has the wrong shape"
    }


def test_a_report_of_a_wrong_result_is_valid_json():
    def refuse(constant):
        raise AssertionError(constant)

    [result] = measured(Own("void", lambda operand: lambda x: torch.full((4, 32), float("nan"))))
    json.loads(Report([result]).to_json(), parse_constant=refuse)


def test_what_cannot_run_says_why():
    [result] = measured(Own("absent", None, obstacle="it needs a quantum computer"))
    absent = result.measurements[1]
    assert (absent.outcome, absent.reason) == ("skipped", "it needs a quantum computer")


def test_given_masks_are_used():
    weight = np.ones((32, 64))
    mask = np.zeros((32, 64), bool)
    mask[:, ::4] = mask[:, 1::4] = True
    assert ms.verify(mask, "2:4")
    seen = []

    def look(operand):
        seen.append(operand.matrix.numpy() != 0)
        return lambda x: x @ operand.matrix.t()

    measured(Own("look", look), masks={"32x64": mask})
    assert weight.shape == mask.shape
    assert np.array_equal(seen[0], mask)


@pytest.mark.parametrize("purposes", [("asked", "curve"), ("curve", "asked")])
def test_given_masks_are_used_for_cases_that_were_asked_for_and_no_others(purposes):
    mask = np.zeros((32, 64), bool)
    mask[:, ::4] = mask[:, 1::4] = True
    seen = []

    def look(operand):
        seen.append(np.array_equal(operand.matrix.numpy() != 0, mask))
        return lambda x: x @ operand.matrix.t()

    bench = Bench({"look": Own("look", look)}, rounds=1, masks={"32x64": mask})
    for purpose in purposes:
        bench.measure(Case(Layer("32x64", 32, 64), 4, "float32", "2:4", "forward", purpose, ("look",)))
    assert seen == [purpose == "asked" for purpose in purposes]


@pytest.mark.parametrize(
    "convert",
    [
        lambda mask: mask.astype(np.float64),
        lambda mask: mask.astype(np.uint8) * 255,
        lambda mask: torch.from_numpy(mask).bfloat16(),
    ],
    ids=["float64", "uint8", "bfloat16"],
)
def test_a_mask_of_another_dtype_keeps_where_it_is_not_zero(convert):
    mask = np.zeros((32, 64), bool)
    mask[:, ::4] = mask[:, 1::4] = True
    seen = []

    def look(operand):
        seen.append((operand.matrix, operand.unmasked))
        return lambda x: x @ operand.matrix.t()

    [result] = measured(Own("look", look), masks={"32x64": convert(mask)})
    matrix, unmasked = seen[0]
    assert result.density == 0.5
    assert matrix.dtype == torch.float32
    assert torch.equal(matrix, unmasked * torch.from_numpy(mask))


@pytest.mark.parametrize(
    ("mask", "words"),
    [(np.ones((32, 64), bool), "does not match its pattern: 512 of 512 tiles"), (np.ones((2, 2), bool), "has shape")],
)
def test_masks_that_do_not_match_are_refused_before_anything_runs(mask, words):
    ran = []
    with pytest.raises(BenchmarkError, match=words) as caught:
        benchmark([Layer("encoder.q", 32, 64)], "2:4", masks={"encoder.q": mask}, on_case=lambda *_: ran.append(1))
    assert caught.value.fault == "invalid_mask"
    assert "'encoder.q'" in str(caught.value)
    with pytest.raises(BenchmarkError, match=r"not measured: 'encoder\.k' \(did you mean 'encoder\.q'\?\)"):
        benchmark([Layer("encoder.q", 32, 64)], "2:4", masks={"encoder.k": mask}, on_case=lambda *_: ran.append(1))
    assert not ran


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rounds": 0}, "rounds 0: must be at least 1"),
        ({"threads": 0}, "threads 0: must be at least 1"),
        ({"threads": 1.5}, "threads 1.5: must be a whole number"),
        ({"patterns": ms.NM(2, 4, axis="out")}, "pattern '2:4' along axis 'out'"),
        ({"layers": [Layer("a", 32, 64, 0)]}, "layer 'a': count 0 is less than 1"),
    ],
)
def test_arguments_that_cannot_be_measured_are_refused_before_anything_runs(options, words):
    ran = []
    with pytest.raises(BenchmarkError, match=words) as caught:
        benchmark(**({"layers": "32x64", "patterns": "2:4"} | options), on_case=lambda *_: ran.append(1))
    assert caught.value.fault == "invalid_benchmark"
    assert not ran


@pytest.mark.parametrize("device", ["tpu", "cpu:", "cpu:1", "cuda:", "cuda:x", "cuda:00", "cuda:\u0663", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(BenchmarkError, match=f"device '{device}'"):
        benchmark("32x64", "2:4", dtypes=["float16"], device=device)


def test_ratios_are_those_of_the_medians_that_are_shown():
    # The median of the ratios of the rounds would be 1: reports could call 2 s against 3 s as fast.
    seconds = {"dense": [2.0, 10.0, 1.0], "fast": [3.0, 5.0, 1.0]}
    assert speedup(seconds, "fast") == summary(seconds["dense"]).median_s / summary(seconds["fast"]).median_s == 2 / 3
    # A machine that is ten times slower in the second round tells nothing about the kernels.
    assert speedup({"dense": [1.0, 10.0, 1.0], "fast": [0.5, 5.0, 0.5]}, "fast") == 2.0
    assert speedup({"fast": [1.0]}, "fast") is None
    assert summary([1.0, 2.0, 3.0, 4.0, 11.0]).median_s == 3.0


def test_the_allowance_is_what_rounding_explains():
    matrix, x = torch.randn(8, 1000), torch.randn(4, 1000)
    right = reference(matrix, x, "float32")
    assert right.error(x @ matrix.t()) <= 1.0
    assert right.error(right.product.float()) < 0.1
    assert right.error((x @ matrix.t()) * (1 + 1e-3)) > 1.0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_allowance_covers_products_below_the_normal_numbers_of_the_dtype(dtype):
    smallest = torch.finfo(getattr(torch, dtype)).tiny
    x = torch.full((1, 1), smallest**0.5, dtype=torch.float64)
    # Just above half of the smallest subnormal number, which is what it is rounded to.
    matrix = x * torch.finfo(getattr(torch, dtype)).eps * 0.51
    right = reference(matrix, x, dtype)
    rounded = right.product.to(getattr(torch, dtype))
    assert rounded.double().item() > 1.9 * right.product.item()
    assert right.error(rounded) <= 1.0
    assert right.error(torch.full_like(rounded, 1000 * smallest)) > 1.0
