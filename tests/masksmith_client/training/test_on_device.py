"""Refreshes that stay on the weights' device: no tensor is read by the host; a GPU is stood in for by the CPU."""

from types import SimpleNamespace

import pytest
import torch
from support.training_loop import perceptron, train
from torch.overrides import TorchFunctionMode

import masksmith as ms
from masksmith_client.training import Refresh, Sparsifier, refresher
from masksmith_client.training.on_device import DeviceHandler, DeviceMemory, DeviceSnapshots, can_solve_on_device
from masksmith_client.training.refresh_worker.messages import RefreshRequest
from masksmith_client.training.refresh_worker.shared_memory import LayerSlot

PATTERN = "2:4"
WAITING = Refresh(every=4, wait=True)
FORBIDDEN = ("numpy", "cpu", "__array__", "from_numpy")


class NothingLeaves(TorchFunctionMode):
    """Fails where a tensor is read by the host, but for a few numbers."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        assert name not in FORBIDDEN, name
        assert name not in ("tolist", "item") or args[0].numel() <= 2, name
        return func(*args, **(kwargs or {}))


def solve_in_torch(scores, pattern):
    """Two of every four by their scores, and the proof, as `masksmith.solve` gives them on a device."""
    matrix = scores.reshape(scores.shape[0], -1, 4)
    mask = torch.zeros_like(matrix, dtype=torch.bool).scatter_(-1, matrix.topk(2, dim=-1).indices, True)
    if not bool(scores.isfinite().all()):
        raise ValueError("scores: NaN")
    kept = float((matrix * mask).sum())
    return SimpleNamespace(
        mask=mask.reshape(scores.shape), status="optimal", gap=0.0, retained=kept / float(scores.sum()), objective=kept,
        upper_bound=kept,
    )  # fmt: skip


@pytest.fixture
def on_device(monkeypatch):
    monkeypatch.setattr(refresher, "can_solve_on_device", lambda layers, masks: True)


def trained(masks, **options):
    model = perceptron()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    sparsifier = Sparsifier(model, PATTERN, masks, WAITING, **options)
    train(model, optimizer, sparsifier, 9)
    return sparsifier


@pytest.mark.parametrize("options", [{}, {"hysteresis": 0.01}, {"method": "trainable-thresholds"}], ids=str)
def test_masks_are_those_of_the_host_and_no_tensor_leaves(on_device, monkeypatch, options):
    if "method" in options:
        monkeypatch.setattr("masksmith_client.training.optimizers.WatchedOptimizers.check", lambda self: None)
        monkeypatch.setattr("masksmith_client.training.optimizers.WatchedOptimizers.__bool__", lambda self: True)
    with NothingLeaves():
        sparsifier = trained(solve_in_torch, **options)
    assert sparsifier.report().asking == "in this process, on the device of the weights"
    monkeypatch.undo()
    if "method" in options:
        return
    expected = trained(ms.solve, **options)
    for name, mask in expected.masks.items():
        assert torch.equal(sparsifier.masks[name], mask), name
    for record, other in zip(sparsifier.report().refreshes, expected.report().refreshes, strict=True):
        assert (record.asked_at, record.applied_at, record.sad) == (other.asked_at, other.applied_at, other.sad)
        assert record.retained == pytest.approx(other.retained)
        assert (record.gap, record.optimal) == (0.0, True)


def test_a_thread_solves_while_training_goes_on(on_device):
    model = perceptron()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Sparsifier(model, PATTERN, solve_in_torch, refresh=2) as sparsifier:
        assert sparsifier.report().asking == "a thread, on the device of the weights"
        while len(sparsifier.report().refreshes) < 3:
            train(model, optimizer, sparsifier, 1)
        assert all(ms.verify(mask, PATTERN) for mask in sparsifier.masks.values())


def test_attention_and_experts_are_solved_matrix_by_matrix(on_device):
    torch.manual_seed(0)
    model = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2)
    masks = Sparsifier(model, PATTERN, solve_in_torch, None).masks
    assert all(ms.verify(mask, PATTERN) for mask in masks.values())


def test_a_layer_with_nan_keeps_its_mask(on_device):
    model = perceptron()
    sparsifier = Sparsifier(model, PATTERN, solve_in_torch, Refresh(every=1, wait=True))
    before = sparsifier.masks["2.weight"]
    model[2].parametrizations.weight.original.data[0, 0] = torch.nan
    sparsifier.step()
    assert torch.equal(sparsifier.masks["2.weight"], before)
    assert sparsifier.report().refreshes[-1].failed == 1


@pytest.mark.parametrize("default", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("name", "dtype"), [("F32", torch.float32), ("F64", torch.float64)])
def test_the_bonus_for_kept_entries_has_the_dtype_of_the_scores(name, dtype, default):
    seen = []

    def solve(scores, pattern):
        seen.append(scores.clone())
        raise ValueError("enough")

    memory = DeviceMemory([LayerSlot("a", name, (4, 4))], [torch.device("cpu")])
    DeviceSnapshots(memory).take("a", torch.zeros(4, 4, dtype=dtype), torch.ones(4, 4, dtype=torch.bool))
    request = RefreshRequest(
        step=0, pattern="2:4", axis="in", ragged="error", layers=["a"], are_scores=True, hysteresis=1e-8, timeout_s=1.0
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        DeviceHandler(solve, memory).handle(request)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(seen[0], torch.full((4, 4), 1e-8, dtype=dtype))


def test_weights_on_the_cpu_and_other_functions_do_not_stay():
    layer = SimpleNamespace(weight=torch.zeros(1))
    assert not can_solve_on_device([layer], ms.solve)
    assert not can_solve_on_device([SimpleNamespace(weight=SimpleNamespace(is_cuda=True))], solve_in_torch)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_masks_are_those_of_the_cpu():
    model = perceptron().cuda()
    sparsifier = Sparsifier(model, "transposable 2:4", ms.solve, WAITING)
    assert "on the device" in sparsifier.report().asking
    expected = Sparsifier(perceptron(), "transposable 2:4", ms.solve, WAITING)
    for name, mask in expected.masks.items():
        assert torch.equal(sparsifier.masks[name].cpu(), mask)


def test_the_streams_of_the_worker_wait_for_copies_on_the_streams_of_training(monkeypatch):
    """Streams are stood in for by the names of their devices."""
    waits = []

    def stream(device):
        return SimpleNamespace(wait_stream=lambda other: waits.append((str(device), other)))

    monkeypatch.setattr("torch.cuda.default_stream", stream)
    monkeypatch.setattr("torch.cuda.current_stream", lambda device: f"training on {device}")
    memory = SimpleNamespace(devices=[torch.device("cuda:0"), torch.device("cuda:1"), torch.device("cpu")])
    DeviceSnapshots(memory).mark_end()
    assert waits == [("cuda:0", "training on cuda:0"), ("cuda:1", "training on cuda:1")]
    assert DeviceMemory([LayerSlot("a", "F32", (2, 4))], [torch.device("meta")]).devices == {torch.device("meta")}
