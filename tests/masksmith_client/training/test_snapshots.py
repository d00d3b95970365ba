"""Copies from GPUs to the shared memory; GPUs are stood in for by the CPU, and the driver by a list of its calls."""

import gc
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from masksmith_client.training.refresh_worker.shared_memory import LayerSlot, SharedMemory
from masksmith_client.training.snapshots import Snapshots


class Gpu0(torch.Tensor):
    """Stands in for a tensor on the first GPU."""

    is_cuda, device = True, torch.device("cuda:0")


class Gpu1(Gpu0):
    """Stands in for a tensor on the second GPU."""

    device = torch.device("cuda:1")


class Event:
    """Stands in for `torch.cuda.Event`; complete when its stream is in `done`."""

    done, recorded = set(), []

    def record(self, stream):
        self.stream = stream
        self.recorded.append(stream)

    def query(self):
        return self.stream in self.done

    def synchronize(self):
        self.done.add(self.stream)


@pytest.fixture
def driver_calls(monkeypatch):
    calls = []
    cudart = SimpleNamespace(
        cudaHostRegister=lambda address, size, flags: calls.append(("pin", address)),
        cudaHostUnregister=lambda address: calls.append(("unpin", address)),
    )
    monkeypatch.setattr(torch.cuda, "cudart", lambda: cudart)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", str)
    monkeypatch.setattr(Event, "done", set())
    monkeypatch.setattr(Event, "recorded", [])
    return calls


def snapshots_of(*names):
    return Snapshots(SharedMemory([LayerSlot(name, "F32", (2, 4)) for name in names]))


def take(snapshots, name, device_class):
    values = torch.ones(2, 4).as_subclass(device_class)
    snapshots.take(name, values, torch.ones(2, 4, dtype=torch.bool).as_subclass(device_class))


def test_copies_are_done_when_those_of_every_gpu_are(driver_calls):
    snapshots, calls = snapshots_of("a", "b"), []
    take(snapshots, "a", Gpu0)
    take(snapshots, "b", Gpu1)
    snapshots.mark_end()
    snapshots.when_done(lambda: calls.append("done"))
    for stream in ("cuda:1", "cuda:0"):
        assert not snapshots.are_done()
        assert calls == []
        Event.done.add(stream)
    assert snapshots.are_done()
    assert calls == ["done"]
    take(snapshots, "b", Gpu1)
    snapshots.mark_end()
    assert sorted(Event.recorded) == ["cuda:0", "cuda:1", "cuda:1"]


def test_a_wait_is_for_the_copies_of_every_gpu(driver_calls):
    snapshots = snapshots_of("a", "b")
    take(snapshots, "a", Gpu0)
    take(snapshots, "b", Gpu1)
    snapshots.mark_end()
    snapshots.wait()
    assert Event.done == {"cuda:0", "cuda:1"}


def test_memory_is_unpinned_after_its_copies(driver_calls):
    snapshots = snapshots_of("a")
    take(snapshots, "a", Gpu0)
    take(snapshots, "a", Gpu0)
    snapshots.mark_end()
    del snapshots
    gc.collect()
    (pin, address), *rest = driver_calls
    assert (pin, rest) == ("pin", [("unpin", address)])
    assert Event.done == {"cuda:0"}


class OtherAccelerator(torch.Tensor):
    """Stands in for a tensor on an accelerator without CUDA; notes whether copies from it are waited for."""

    non_blocking: ClassVar[list[bool]] = []

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.Tensor.copy_:
            cls.non_blocking.append((kwargs or {}).get("non_blocking", False))
        return super().__torch_function__(function, types, args, kwargs or {})


def test_copies_from_an_accelerator_without_events_of_cuda_are_waited_for():
    take(snapshots_of("a"), "a", OtherAccelerator)
    assert OtherAccelerator.non_blocking == [False, False]
