"""Where a solve goes, and what it says when it cannot go there."""

import logging
from importlib import import_module

import numpy as np
import pytest
import torch
from support.gpus import mock_current_device

import masksmith as ms
from masksmith import cuda

SCORES = np.abs(np.random.default_rng(0).standard_normal((16, 16))).astype(np.float32)


def raised_by(module, name, *arguments):
    """Make an exception of another package."""
    return getattr(import_module(module), name)(*arguments)


@pytest.fixture
def failure():
    return torch.cuda.OutOfMemoryError("no room")


@pytest.fixture
def broken_device(monkeypatch, failure):
    """A device that can be used, until it is."""

    def fail(*arguments):
        raise failure

    monkeypatch.setattr(cuda, "reason_kernels_cannot_run", lambda: None)
    monkeypatch.setattr(cuda, "reason_not_cuda_device", lambda device: None)
    monkeypatch.setattr(cuda, "solve_on", fail)


def test_a_device_asked_for_by_name_must_be_there():
    with pytest.raises(ms.SolverError, match=r"device='cuda:0' cannot be used: numba-cuda"):
        ms.solve(SCORES, "transposable 4:8", ms.Exact(device="cuda:0"))


def test_a_device_of_another_number_is_refused_where_kernels_can_run(monkeypatch):
    monkeypatch.setattr(cuda, "reason_kernels_cannot_run", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device in ("cuda:7", "gpu"):
        with pytest.raises(ms.SolverError, match=rf"device='{device}' cannot be used: .* none of the 2 CUDA device"):
            ms.solve(SCORES, "transposable 4:8", ms.Exact(device=device))


@pytest.mark.parametrize("kind", [ms.Greedy, ms.Sinkhorn])
@pytest.mark.parametrize("device", ["cuda:99", "gpu", "cuda:x"])
def test_the_device_of_a_solver_in_torch_must_be_there(kind, device):
    with pytest.raises(ms.SolverError, match=rf"device='{device}' cannot be used: .*device"):
        ms.solve(SCORES, "transposable 4:8", kind(device=device))


def test_a_device_that_fails_leaves_the_work_to_the_processor_and_says_so(broken_device, caplog):
    with caplog.at_level(logging.WARNING):
        solution = ms.solve(SCORES, "transposable 4:8", ms.Exact(device="cuda:0"), name="layer")
    assert solution.status is ms.Status.OPTIMAL
    assert (solution.stats["device"], solution.stats["fallback"]) == (
        "cpu",
        "cuda:0 failed (OutOfMemoryError: no room)",
    )
    assert "layer: cuda:0 failed" in caplog.text
    many = ms.solve_many({"a": SCORES}, "transposable 4:8", ms.Exact(device="cuda:0"))
    assert "no room" in many["a"].stats["fallback"]


@pytest.mark.parametrize(
    "failure",
    [
        raised_by("cuda.core._utils.cuda_utils", "CUDAError", "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"),
        raised_by("cuda.core._utils.cuda_utils", "NVRTCError", "no source"),
        raised_by("cuda.bindings.nvjitlink", "nvJitLinkError", 6),
        raised_by("numba.cuda.cudadrv.driver", "CudaAPIError", 700, "illegal address"),
        raised_by("numba.cuda.cudadrv.driver", "LinkerError", "no symbol"),
        raised_by("numba.cuda.cudadrv.error", "NvvmError", "no module"),
        raised_by("numba.cuda.cudadrv.error", "CudaRuntimeError", "no runtime"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
    ],
    ids=lambda error: f"{type(error).__module__}.{type(error).__name__}",
)
def test_errors_of_all_packages_below_are_failures_of_the_device(broken_device, failure):
    solution = ms.solve(SCORES, "transposable 4:8", ms.Exact(device="cuda:0"))
    assert solution.stats["fallback"] == f"cuda:0 failed ({type(failure).__name__}: {failure})"


@pytest.mark.parametrize("failure", [ms.SolverError("a fault of the problem"), RuntimeError("a fault of this code")])
def test_other_errors_are_not_hidden_by_the_processor(broken_device, failure):
    with pytest.raises(type(failure), match="a fault of"):
        ms.solve(SCORES, "transposable 4:8", ms.Exact(device="cuda:0"))


def test_a_problem_is_solved_while_its_device_is_the_current_one(monkeypatch):
    current, seen = mock_current_device(monkeypatch), []

    class Recorder:
        def __init__(self, problem, device):
            seen.append((device, current()))

        def solve(self):
            seen.append(current())

    monkeypatch.setattr("masksmith.cuda.solve.DeviceSolve", Recorder)
    cuda.solve_on("cuda:1", None)
    assert seen == [("cuda:1", "cuda:1"), "cuda:1"]


def test_scores_in_memory_stay_on_the_processor(broken_device):
    assert "fallback" not in ms.solve(SCORES, "transposable 4:8").stats
    assert ms.solve(SCORES, "transposable 4:8", ms.Exact(device="cpu")).stats["device"] == "cpu"


def test_a_device_of_torch_is_not_always_a_cuda_device():
    assert cuda.reason_not_torch_device("mps") is None
    assert "CUDA device(s) that torch finds" in cuda.reason_not_cuda_device("mps")
    for reason in (cuda.reason_not_torch_device, cuda.reason_not_cuda_device):
        assert reason("gpu") is not None
