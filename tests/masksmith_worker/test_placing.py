"""Solvers on a worker's device, and what happens where there is none."""

import logging

import numpy as np
import pytest
from support.leases import run_shard

import masksmith as ms
from masksmith.cuda import device_facts
from masksmith_worker.runner import ShardRunner
from masksmith_worker.stages import solve
from masksmith_worker.stages.solve import solver_on

T48 = ms.parse("transposable 4:8")


@pytest.mark.parametrize(
    ("name", "pattern", "solver"),
    [
        ("auto", T48, ms.Exact(device="cuda:1")),
        ("exact", T48, ms.Exact(device="cuda:1")),
        ("greedy", T48, ms.Greedy(device="cuda:1")),
        ("min-cost-flow", T48, ms.MinCostFlow()),
        ("top-k", ms.parse("2:4"), ms.TopK()),
        ("auto", ms.parse("block 4x4 50%"), ms.Auto()),
    ],
)
def test_jobs_that_a_gpu_supports_are_sent_to_gpu_workers(monkeypatch, name, pattern, solver):
    monkeypatch.setattr(solve, "_unusable_reason", lambda device, needs_kernels: None)
    assert solver_on(name, pattern, "cuda:1") == solver


@pytest.mark.parametrize("solver", ["exact", "greedy", "sinkhorn"])
def test_a_device_that_cannot_be_used_is_named_and_the_processor_reported(records, store, submit, caplog, solver):
    runner = ShardRunner(records, store, lease_s=30.0, device="cuda:0")
    weight = np.random.default_rng(0).standard_normal((16, 16), dtype=np.float32)
    job = submit({"w": weight}, "transposable 4:8", solver=solver)
    with caplog.at_level(logging.WARNING):
        assert run_shard(runner, job, 0) == "completed"
    report = records.reports(job)[0]
    assert report.error is None
    assert report.status in ("optimal", "feasible")
    assert report.device == "cpu"
    assert "cuda:0 cannot be used" in caplog.text


@pytest.mark.parametrize(
    ("device", "is_usable"), [("cuda", True), ("cuda:1", True), ("cuda:2", False), ("cuda:x", False), ("mps", False)]
)
def test_only_devices_that_exist_are_used(monkeypatch, caplog, device, is_usable):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    solve._unusable_reason.cache_clear()
    chosen = solver_on("greedy", T48, device)
    solve._unusable_reason.cache_clear()
    assert chosen == (ms.Greedy(device=device) if is_usable else ms.Greedy())
    assert is_usable or device_facts(device) == (None, None)
    assert is_usable or f"{device} cannot be used: it is none of the 2 CUDA device(s)" in caplog.text


def test_a_cpu_has_no_gpu_facts():
    assert device_facts("cpu") == device_facts("cuda:0") == (None, None)
