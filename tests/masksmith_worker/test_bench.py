"""Benchmark cases measured by real runners against a real Valkey, with exclusive use of the device."""

import json
import threading
import time
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
from support.leases import run_shard

from masksmith.benchmark import CaseResult, Declaration, Layer, Packed, Request, Support, own_kernels, plan
from masksmith_state.blobs.names import piece_list_name, result_name
from masksmith_state.blobs.store import BlobStore
from masksmith_state.device_locks import locks
from masksmith_state.device_locks.locks import DeviceLock
from masksmith_state.jobs.records import JobRecords
from masksmith_state.jobs.redis_keys import events_key
from masksmith_state.queue import BENCH_CPU_QUEUE
from masksmith_wire import masks
from masksmith_wire.benchmarks import BenchmarkOptions, BenchmarkPlan, PlannedCase, PlannedMask, PlannedMaskPart
from masksmith_worker import bench
from masksmith_worker.bench import CaseRunner, bench_worker_document
from masksmith_worker.runner import ShardRunner

LAYERS = [Layer("a", 16, 32)]


class Spy:
    """A dense product that says when it runs."""

    def __init__(self, name="spy", fault=None, pause_s=0.0):
        self.declaration = Declaration(name, "for a test", {"cpu": Support({"float32": (1, 1)})})
        self.fault, self.pause_s, self.spans = fault, pause_s, []

    def obstacle(self, device):
        return None

    def pack(self, operand):
        if self.fault is not None and self.fault in str(operand.sample.shape):
            raise RuntimeError("no such luck")

        def run(x):
            begun = time.monotonic()
            time.sleep(self.pause_s)
            y = x @ operand.matrix.t()
            self.spans.append((begun, time.monotonic(), threading.get_ident()))
            return y

        return Packed({"product": run}, 1)


@pytest.fixture
def spy(monkeypatch):
    spy = Spy()
    registry = {"dense": own_kernels()["dense"], "spy": spy}
    monkeypatch.setattr(bench, "all_kernels", lambda: registry)
    return spy


@pytest.fixture
def ask(records):
    """Record a benchmark as the service would; gives its id."""

    def ask(kernels, given=None, **options):
        chosen = {"patterns": ["2:4"], "batches": [2, 3], "rounds": 2, "curves": False} | options
        wanted = BenchmarkOptions(**chosen)
        names = {"patterns", "batches", "dtypes", "directions", "kernels", "device", "curves"}
        fields = wanted.model_dump(include=names)
        cases = plan(Request(layers=LAYERS, **fields), {name: one.declaration for name, one in kernels.items()})
        parts = [PlannedCase(case=asdict(case)) for case in cases]
        job, _ = records.create(BenchmarkPlan(options=wanted, masks=given or {}), parts, queue=BENCH_CPU_QUEUE)
        return job

    return ask


def runner_of(records, store, kind=CaseRunner, **options):
    return kind(records, store, device_lock=DeviceLock(records.redis, "cpu-test", 60.0), **options)


def test_a_job_is_measured_case_by_case(records, store, ask, spy):
    runner = runner_of(records, store)
    job = ask(runner.kernels)
    assert [run_shard(runner, job, index) for index in (1, 0)] == ["completed", "completed"]
    record = records.read(job)
    assert (record.kind, record.state, record.done) == ("benchmark", "succeeded", 2)
    results = {index: CaseResult.read(report.result) for index, report in records.case_reports(job).items()}
    assert [results[index].case.batch for index in (0, 1)] == [2, 3]
    for result in results.values():
        assert [one.kernel for one in result.measured] == ["dense", "spy"]
        assert result.machine["copy_bytes_per_s"] > 0
    events = [(fields["event"], json.loads(fields["data"])) for _, fields in records.redis.xrange(events_key(job))]
    assert [data["case"] for kind, data in events if kind == "case"] == [str(results[1].case), str(results[0].case)]
    assert [data["done"] for kind, data in events if kind == "progress"] == [1, 2]
    assert spy.spans


def test_a_case_of_which_nothing_is_measured_fails_and_the_others_go_on(records, store, ask, spy, monkeypatch):
    runner = runner_of(records, store)
    job = ask(runner.kernels)

    def broken(self, operand):
        if operand.sample.shape[0] == 2:
            raise RuntimeError("no such luck")
        return Packed({"product": lambda x: x @ operand.unmasked.t()}, 1)

    monkeypatch.setattr(type(runner.kernels["dense"]), "pack", broken)
    spy.fault = "[2, 32]"
    assert [run_shard(runner, job, index) for index in (0, 1)] == ["completed", "completed"]
    assert records.read(job).state == "failed"
    reports = records.case_reports(job)
    assert reports[0].error.code == "kernel_refused"
    assert "nothing was measured" in reports[0].error.message
    assert "no such luck" in reports[0].error.message
    assert reports[1].error is None
    assert CaseResult.read(reports[1].result).of("spy") is not None


def test_a_case_that_holds_the_device_for_too_long_fails(records, store, ask, spy, monkeypatch):
    monkeypatch.setattr(locks, "EXCLUSIVE_LIMIT_S", 0.05)
    spy.pause_s = 0.1
    runner = runner_of(records, store)
    job = ask(runner.kernels)
    assert run_shard(runner, job, 0) == "completed"
    error = records.case_reports(job)[0].error
    assert error.code == "kernel_refused"
    assert "may hold the device for 0.05 s, and this case took longer" in error.message


def test_two_benchmarks_at_once_never_overlap_on_a_device(valkey, records, store, ask, spy):
    spy.pause_s = 0.001
    runners = [runner_of(JobRecords(valkey.url), store) for _ in range(2)]
    jobs = [ask(runner.kernels, batches=[1, 2, 3]) for runner in runners]
    words = []

    def work(runner, job):
        words.extend(run_shard(runner, job, index) for index in range(3))

    threads = [threading.Thread(target=work, args=pair) for pair in zip(runners, jobs, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert words == ["completed"] * 6
    # Whole cases alternate: between the first and the last call of a case nobody else's call lies.
    spans = sorted(spy.spans)
    changes = sum(before[2] != after[2] for before, after in pairwise(spans))
    assert len({span[2] for span in spans}) == 2
    assert changes <= 5
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_a_search_waits_while_a_case_is_measured(records, store, ask, spy, submit):
    spy.pause_s = 0.02
    searching = submit({"w": np.ones((8, 8), np.float32)})
    measuring, search = runner_of(records, store), runner_of(records, store, ShardRunner)
    job = ask(measuring.kernels, batches=[1])
    bench = threading.Thread(target=run_shard, args=(measuring, job, 0))
    bench.start()
    deadline = time.monotonic() + 300
    while not spy.spans:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    with search.next_lease() as lease:
        assert lease.job == searching
        assert search.run(lease) == "completed"
    done = time.monotonic()
    bench.join(300)
    assert max(span[1] for span in spy.spans) < done


def test_a_worker_that_stops_does_not_wait_for_a_benchmark(records, store, submit):
    job = submit({"w": np.ones((8, 8), np.float32)})
    search = runner_of(records, store, ShardRunner)
    stop = threading.Timer(0.3, search.stopping.set)
    stop.start()
    with DeviceLock(records.redis, "cpu-test").exclusive(lambda: None), search.next_lease() as lease:
        assert lease is None
    stop.join()
    assert records.state(job) == "queued"


def mask_in(store, mask, pattern="2:4"):
    digest = store.put(result_name("m" * 64), masks.pack(mask).tobytes())
    return {"a": PlannedMask(rows=16, cols=32, parts=[PlannedMaskPart(result="m" * 64, rows=16, digest=digest)])}


@pytest.mark.parametrize("is_list_lost", [False, True])
def test_masks_of_an_earlier_job_are_what_is_measured(records, store, ask, spy, is_list_lost):
    mask = np.tile([True, True, False, False], (16, 8))
    runner = runner_of(records, BlobStore(store.url))
    job = ask(runner.kernels, mask_in(store, mask), batches=[2])
    if is_list_lost:
        store.objects.delete(piece_list_name(result_name("m" * 64)))
    assert run_shard(runner, job, 0) == "completed"
    assert CaseResult.read(records.case_reports(job)[0].result).density == 0.5
    assert records.read(job).state == "succeeded"


def test_a_mask_that_breaks_its_pattern_or_is_gone_is_an_error_of_the_case(records, store, ask, spy):
    runner = runner_of(records, store)
    broken = ask(runner.kernels, mask_in(store, np.ones((16, 32), bool)), batches=[2])
    assert run_shard(runner, broken, 0) == "completed"
    error = records.case_reports(broken)[0].error
    assert (error.code, "'a' does not match its pattern" in error.message) == ("invalid_mask", True)
    gone = ask(runner.kernels, {"a": PlannedMask(rows=16, cols=32, parts=[PlannedMaskPart(result="0" * 64, rows=16)])})
    assert run_shard(runner, gone, 0) == "completed"
    assert records.case_reports(gone)[0].error.code == "result_not_found"
    store.put(result_name("a" * 64), masks.pack(np.ones((8, 32), bool)).tobytes())
    short = ask(runner.kernels, {"a": PlannedMask(rows=16, cols=32, parts=[PlannedMaskPart(result="a" * 64, rows=16)])})
    assert run_shard(runner, short, 0) == "completed"
    assert records.case_reports(short)[0].error.code == "result_damaged"
    assert not spy.spans


def test_a_worker_announces_what_it_can_run_and_why_not(spy):
    found = bench_worker_document("w", "cpu", own_kernels())
    obstacles = {one.declaration["name"]: one.obstacle for one in found.kernels}
    assert obstacles["csr"] is None
    assert obstacles["semi-structured-cusparselt"] == "it does not run on cpu"
    assert all(Declaration.read(one.declaration).name for one in found.kernels)
