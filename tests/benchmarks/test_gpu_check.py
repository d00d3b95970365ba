"""The script for the first day with a GPU runs through where there is none: the processor plays the device."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import masksmith as ms

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


class Event:
    """A CUDA event, by the host's clock."""

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.at = time.perf_counter()

    def elapsed_time(self, other):
        return (other.at - self.at) * 1e3


@pytest.fixture
def gpu_exact(monkeypatch):
    """Its parts, with small sizes and no device but the processor."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import gpu_exact

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "the processor")
    monkeypatch.setattr(gpu_exact, "SIZES", (64, 128))
    monkeypatch.setattr(gpu_exact, "PEERS_SIZE", 64)
    monkeypatch.setattr(gpu_exact, "COPY_SIZE", 2**16)
    return gpu_exact


@pytest.mark.slow
def test_times_and_peers_are_written_down(gpu_exact, tmp_path):
    summary = gpu_exact.times("cpu", tmp_path, quick=False)
    text = (tmp_path / "exact_times.md").read_text()
    assert summary.startswith(f"{len(gpu_exact.TIMED) * 2 * 2} times")
    for word in ("the processor", "300 projections (torch)", "greedy", "90 patterns (matmul)", "128^2", "bfloat16"):
        assert word in text
    # The one peer that runs only on devices cannot run; all others have a time.
    assert text.count("cannot run") == 1
    assert "torch's greedy tile kernel" in next(line for line in text.splitlines() if "cannot run" in line)


@pytest.mark.parametrize("failing", [[64], [64, 128]])
def test_times_of_the_cpu_are_not_called_those_of_the_device(gpu_exact, tmp_path, monkeypatch, failing):
    solve = ms.solve

    def fall_back(scores, pattern, *arguments, **options):
        solution = solve(scores, pattern, *arguments, **options)
        reason = {"fallback": "cuda:0 failed (OutOfMemoryError: no room)"} if len(scores) in failing else {}
        return replace(solution, stats=solution.stats | reason)

    monkeypatch.setattr(ms, "solve", fall_back)
    monkeypatch.setattr(gpu_exact, "TIMED", ("transposable 2:4",))
    monkeypatch.setattr(gpu_exact, "_peers", lambda device, quick: "")
    if len(failing) == 2:
        with pytest.raises(RuntimeError, match="the device was not used: cuda:0 failed"):
            gpu_exact.times("cpu", tmp_path, quick=False)
        return
    assert gpu_exact.times("cpu", tmp_path, quick=False).startswith("2 times")
    text = (tmp_path / "exact_times.md").read_text()
    assert text.count("cannot run: the device was not used: cuda:0 failed (OutOfMemoryError: no room)") == 2


def test_bits_are_not_compared_with_themselves(gpu_exact, tmp_path):
    with pytest.raises(RuntimeError, match="the device was not used: it is the CPU"):
        gpu_exact.bits("cpu", tmp_path, quick=True)


def test_results_of_the_cpu_are_not_compared_as_those_of_the_device(gpu_exact, monkeypatch):
    def fall_back(scores, pattern, solver, **options):
        solution = solve(scores, pattern, ms.Exact(device="cpu"), **options)
        fell_back = {"fallback": "cuda:0 failed (OutOfMemoryError: no room)"} if solver.device is None else {}
        return replace(solution, stats=solution.stats | fell_back)

    solve = ms.solve
    monkeypatch.setattr(ms, "solve", fall_back)
    with pytest.raises(RuntimeError, match=r"case: the device was not used: cuda:0 failed \(OutOfMemoryError"):
        gpu_exact._compare(torch.rand(16, 16), "transposable 4:8", "cpu", "case")


def test_other_duals_than_the_cpus_are_found(gpu_exact, monkeypatch):
    def solve(scores, pattern, solver, **options):
        solution = on_cpu(scores, pattern, ms.Exact(device="cpu"), **options)
        if solver.device == "cpu":
            return solution
        rows, columns = solution.duals
        return replace(solution, duals=(rows, columns + moved))

    on_cpu, moved = ms.solve, 0.0
    monkeypatch.setattr(ms, "solve", solve)
    scores = torch.rand(16, 16)
    gpu_exact._compare(scores, "transposable 4:8", "cpu", "case")
    moved = 1e-9
    with pytest.raises(RuntimeError, match="case: 32 column duals differ"):
        gpu_exact._compare(scores, "transposable 4:8", "cpu", "case")


def test_without_a_device_it_says_so():
    command = [sys.executable, BENCHMARKS / "gpu_check.py"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 2, done.stderr
    assert "nothing was checked" in done.stdout
