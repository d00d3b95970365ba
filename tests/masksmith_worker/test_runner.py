import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from obstore.exceptions import BaseError as StoreError

import masksmith as ms
from masksmith.solvers._min_cost_flow import MinCostFlow
from masksmith_protocol.documents import JobState
from masksmith_protocol.masks import unpack
from masksmith_protocol.retention import Retention
from masksmith_protocol.store import result_name, result_report_name, upload_name
from masksmith_worker import leased, runner as runner_module

RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.standard_normal((32, 48)).astype(np.float32)
TRANSPOSABLE = "transposable 2:4"


def run_all(runner, job):
    return [runner.run(job, shard) for shard in runner.records.shards(job)]


def mask_of(runner, job, tensor=0):
    """Put a tensor's mask together from its shards."""
    reports, parts = runner.records.reports(job), []
    record = runner.records.read(job)
    for index, shard in runner.records.shards(job).items():
        if shard.tensor == tensor:
            packed = np.frombuffer(runner.store.get(result_name(reports[index].result)), np.uint8)
            parts.append(unpack(packed, (shard.last - shard.first, *record.plan.tensors[tensor].shape[1:])))
    return np.concatenate(parts)


def files(store):
    return sorted(path.name for path in Path(store.url).rglob("*") if path.is_file())


@pytest.fixture
def solves(monkeypatch):
    """Counts the solves."""
    calls = []
    solve = ms.solve

    def counted(*args, **options):
        calls.append(args)
        return solve(*args, **options)

    monkeypatch.setattr(runner_module.ms, "solve", counted, raising=False)
    return calls


@pytest.mark.parametrize(
    ("pattern", "solver", "options"),
    [
        ("2:4", "auto", {}),
        ("2:4", "top-k", {"axis": "out"}),
        (TRANSPOSABLE, "auto", {}),
        (TRANSPOSABLE, "min-cost-flow", {}),
        ("transposable <=3:7", "greedy", {"ragged": "dense"}),
        ("transposable 3:5", "exact", {"ragged": "pad"}),
    ],
)
def test_a_job_has_the_masks_that_the_library_finds(runner, submit, pattern, solver, options):
    job = submit({"w": WEIGHT}, pattern, solver=solver, shard_bytes=48 * 4 * 10, **options)
    words = run_all(runner, job)
    assert len(words) > 1
    assert set(words) == {"struck"}
    assert runner.records.state(job) is JobState.SUCCEEDED
    expected = ms.solve(ms.magnitude(WEIGHT), ms.parse(pattern, **options), solver, threads=1)
    assert (mask_of(runner, job) == expected.mask).all()
    reports = runner.records.reports(job).values()
    assert sum(report.objective for report in reports) == pytest.approx(expected.objective)
    assert sum(report.kept for report in reports) == expected.kept
    assert sum(report.entries for report in reports) == WEIGHT.size
    if solver != "greedy":
        assert {report.status for report in reports} == {"optimal"}
        assert all(report.objective == report.upper_bound for report in reports)


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.uint8]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype(runner, submit, dtype):
    weight = torch.as_tensor(WEIGHT * 10).abs().to(dtype)
    job = submit({"w": weight}, TRANSPOSABLE)
    assert run_all(runner, job) == ["struck"]
    assert (mask_of(runner, job) == ms.solve(weight.double(), TRANSPOSABLE).mask.numpy()).all()


def test_the_most_negative_int8_is_the_largest(runner, submit):
    weight = np.full((1, 4), 127, np.int8)
    weight[0, 3] = -128
    job = submit({"w": weight}, "1:4")
    assert run_all(runner, job) == ["struck"]
    assert mask_of(runner, job).tolist() == [[False, False, False, True]]


def test_a_convolution_is_solved_with_its_channels_last(runner, submit):
    weight = RANDOM.standard_normal((8, 4, 3, 3)).astype(np.float32)
    job = submit({"w": weight}, "2:4", shard_bytes=4 * 36 * 4)
    assert run_all(runner, job) == ["struck", "struck"]
    mask = mask_of(runner, job)
    assert mask.shape == weight.shape
    assert (mask == ms.solve(ms.magnitude(weight), "2:4").mask).all()
    assert (mask.sum(axis=1) == 2).all()


def test_given_scores_are_taken_as_they_are(runner, submit):
    scores = np.abs(WEIGHT)
    job = submit({"w": scores}, scores="given")
    assert run_all(runner, job) == ["struck"]
    assert (mask_of(runner, job) == ms.solve(scores, "2:4").mask).all()


FAULTS = [
    pytest.param(np.float32, "nan", (3, 5), {}, "NaN", id="NaN"),
    pytest.param(np.float32, "inf", (3, 5), {}, "infinity", id="infinity"),
    pytest.param(np.float32, "-inf", (3, 5), {}, "infinity", id="-infinity"),
    pytest.param(np.float32, "nan", (21, 0), {}, "NaN", id="second shard"),
    pytest.param(np.float32, "nan", (31, 47), {}, "NaN", id="last entry"),
    pytest.param(np.float32, "-1.5", (21, 7), {"scores": "given"}, "negative score -1.5", id="negative"),
    pytest.param(np.float64, "nan", (21, 7), {"axis": "out"}, "NaN", id="axis out"),
    pytest.param(np.float16, "inf", (17, 7), {}, "infinity", id="half"),
]


@pytest.mark.parametrize(("dtype", "value", "index", "options", "reason"), FAULTS)
def test_a_bad_value_is_named_and_the_other_tensors_have_masks(runner, submit, dtype, value, index, options, reason):
    bad, good = np.abs(WEIGHT).astype(dtype), np.abs(WEIGHT)
    bad[index] = float(value)
    job = submit({"bad": bad, "good": good}, shard_bytes=16 * 48 * bad.itemsize, **options)
    assert set(run_all(runner, job)) == {"struck"}
    assert runner.records.state(job) is JobState.FAILED
    shards, reports = runner.records.shards(job), runner.records.reports(job)
    (error,) = [report.error for report in reports.values() if report.error]
    assert (error.code, error.index) == ("invalid_scores", list(index))
    assert error.message == f"tensor 'bad': {reason} at {list(index)}"
    assert all(reports[at].status == "optimal" for at, shard in shards.items() if shard.tensor == 1)
    assert (mask_of(runner, job, 1) == ms.solve(good, ms.parse("2:4", axis=options.get("axis", "in"))).mask).all()


def test_a_bad_value_in_bfloat16_and_in_a_convolution(runner, submit):
    weight = torch.ones((32, 4, 3, 3), dtype=torch.bfloat16)
    weight[21, 2, 1, 0] = float("nan")
    job = submit({"w": weight}, shard_bytes=16 * 36 * 2)
    assert run_all(runner, job) == ["struck", "struck"]
    assert runner.records.reports(job)[1].error.index == [21, 2, 1, 0]


def test_scores_that_add_up_to_infinity_are_refused(runner, submit):
    job = submit({"w": np.full((4, 4), 1e308)})
    assert run_all(runner, job) == ["struck"]
    error = runner.records.reports(job)[0].error
    assert (error.code, error.message) == ("invalid_scores", "tensor 'w': its scores add up to more than float64 holds")


def test_a_solver_that_does_not_fit_the_pattern_says_so(runner, submit):
    job = submit({"w": WEIGHT}, "2:4", solver="min-cost-flow")
    assert run_all(runner, job) == ["struck"]
    error = runner.records.reports(job)[0].error
    assert error.code == "solver_refused"
    assert "'w'" in error.message
    assert "top-k" in error.message


def test_an_upload_that_is_gone(runner, submit):
    job = submit({"w": WEIGHT})
    runner.store.delete(upload_name(runner.records.read(job).plan.tensors[0].digest))
    assert run_all(runner, job) == ["struck"]
    error = runner.records.reports(job)[0].error
    assert (error.code, error.message) == ("upload_not_found", "tensor 'w': its upload is gone; send it again")


@pytest.mark.parametrize("left", [0, 10, -1])
def test_an_upload_that_was_cut_in_the_store_is_named_and_deleted(runner, submit, store, left):
    job = submit({"w": WEIGHT})
    digest = runner.records.read(job).plan.tensors[0].digest
    runner.holdings.link("ann", digest, 1, None)
    store.put(upload_name(digest), store.get(upload_name(digest))[:left])
    assert run_all(runner, job) == ["struck"]
    error = runner.records.reports(job)[0].error
    assert (error.code, error.message) == (
        "upload_damaged", "tensor 'w': its upload was damaged in the store and has been deleted; send it again",
    )  # fmt: skip
    assert store.size(upload_name(digest)) is None
    assert runner.holdings.touch("ann", digest, anybodys=True) is None


def test_a_time_limit_is_the_jobs(runner, submit, solves, monkeypatch):
    job = submit({"w": np.tile(WEIGHT, (40, 30))}, TRANSPOSABLE, shard_bytes=2**16, time_limit_s=60.0)
    limits = []
    solve = runner_module.ms.solve

    def late(*args, **options):
        limits.append(options["time_limit_s"])
        # As if this shard had taken 25 s.
        started = float(runner.records.redis.hget(f"masksmith:job:{job}", "started_at"))
        runner.records.redis.hset(f"masksmith:job:{job}", "started_at", started - 25)
        return solve(*args, **options)

    monkeypatch.setattr(runner_module.ms, "solve", late, raising=False)
    assert len(set(run_all(runner, job))) == 1
    assert [round(limit / 5) * 5 for limit in limits[:3]] == [60, 35, 10]
    assert set(limits[3:]) == {1e-9}
    assert limits[3:]
    statuses = [report.status for _, report in sorted(runner.records.reports(job).items())]
    assert statuses[:3] == ["optimal"] * 3
    assert set(statuses[3:]) == {"time_limit"}


def test_a_result_is_held_before_it_is_looked_for(runner, submit, store, monkeypatch):
    run_all(runner, first := submit({"w": WEIGHT}))
    second = submit({"w": WEIGHT})
    retention = Retention(runner.records, runner.holdings, store, 10.0, 10.0)
    size = type(store).size

    def looked(self, name):
        # The only other job that holds it is deleted at this very moment.
        if name.startswith("masks/"):
            runner.records.delete(first)
            assert retention.free_results() == 0
        return size(self, name)

    monkeypatch.setattr(type(store), "size", looked)
    run_all(runner, second)
    monkeypatch.undo()
    assert mask_of(runner, second).shape == WEIGHT.shape
    runner.records.delete(second)
    assert retention.free_results() == 1
    assert [name for name in files(store) if name.startswith("masks")] == []


def test_the_same_work_is_done_once(runner, submit, solves):
    first, second = (submit({name: WEIGHT}, shard_bytes=48 * 4 * 16) for name in ("a", "a"))
    assert run_all(runner, first) == ["struck", "struck"]
    assert len(solves) == 2
    assert run_all(runner, second) == ["struck", "struck"]
    assert len(solves) == 2
    anew, again = runner.records.reports(first), runner.records.reports(second)
    assert [report.remembered for report in (*anew.values(), *again.values())] == [False, False, True, True]
    assert anew == {index: report.model_copy(update={"remembered": False}) for index, report in again.items()}
    run_all(runner, submit({"a": WEIGHT}, "1:4", shard_bytes=48 * 4 * 16))
    assert len(solves) == 4


def test_a_new_version_of_the_solver_does_not_meet_old_masks(runner, submit, solves, monkeypatch):
    for _ in range(2):
        run_all(runner, submit({"w": WEIGHT}, TRANSPOSABLE, solver="min-cost-flow"))
    assert len(solves) == 1
    monkeypatch.setattr(MinCostFlow, "version", MinCostFlow.version + 1)
    run_all(runner, submit({"w": WEIGHT}, TRANSPOSABLE, solver="min-cost-flow"))
    assert len(solves) == 2


@pytest.mark.parametrize("name", [result_name, result_report_name])
def test_a_result_of_which_a_part_is_missing_is_made_again(runner, submit, solves, name):
    job = submit({"w": WEIGHT})
    run_all(runner, job)
    before = files(runner.store)
    runner.store.delete(name(runner.records.reports(job)[0].result))
    run_all(runner, submit({"w": WEIGHT}))
    assert (len(solves), files(runner.store)) == (2, before)


def test_what_a_time_limit_left_is_nobody_elses_result(runner, submit, solves):
    jobs = [submit({"w": np.tile(WEIGHT, (40, 30))}, TRANSPOSABLE, time_limit_s=1e-9) for _ in range(2)]
    results = []
    for job in jobs:
        assert set(run_all(runner, job)) == {"struck"}
        reports = runner.records.reports(job).values()
        assert {report.status for report in reports} == {"time_limit"}
        assert ms.verify(mask_of(runner, job), TRANSPOSABLE).ok
        results += [report.result for report in reports]
    assert len(set(results)) == len(results) == len(solves)


def test_a_second_run_does_nothing(runner, submit, solves):
    job = submit({"w": WEIGHT})
    assert runner.run(job, 0) == "struck"
    before = files(runner.store)
    assert runner.run(job, 0) == "closed"
    assert (len(solves), files(runner.store)) == (1, before)
    other = submit({"a": WEIGHT, "b": -WEIGHT})
    assert [runner.run(other, 0), runner.run(other, 0)] == ["struck", "done"]
    assert runner.run("unknown", 0) == "closed"


def test_a_shard_that_somebody_holds_is_left_alone(runner, submit, solves):
    job = submit({"w": WEIGHT})
    lease = runner.records.take(job, 0, lease_s=60, attempts=3)
    assert runner.run(job, 0) == "held"
    assert solves == []
    runner.records.release(lease)
    assert runner.run(job, 0) == "struck"


class Slow:
    """A solve that goes on, panel by panel, until it is stopped; `deaf` ones are not asked."""

    def __init__(self, monkeypatch, *, deaf=False):
        self.entered, self.leave = threading.Event(), threading.Event()
        self._solve, self._deaf = ms.solve, deaf
        monkeypatch.setattr(runner_module.ms, "solve", self, raising=False)

    def __call__(self, *args, on_progress, **options):
        self.entered.set()
        until = time.monotonic() + 20
        while not self.leave.wait(0.01):
            assert time.monotonic() < until
            if not self._deaf:
                on_progress(1, 2)
        return self._solve(*args, **options)


@pytest.fixture
def in_background():
    """Run a shard on a thread; gives a function that waits for the word."""
    threads = []

    def start(runner, job, shard=0):
        words = []
        thread = threading.Thread(target=lambda: words.append(runner.run(job, shard)))
        thread.start()
        threads.append(thread)

        def word():
            thread.join(20)
            return words[0]

        return word

    yield start
    for thread in threads:
        thread.join()


def test_a_canceled_shard_stops(runner, submit, monkeypatch, in_background):
    slow, job = Slow(monkeypatch), submit({"w": WEIGHT})
    word = in_background(runner, job)
    assert slow.entered.wait(20)
    runner.records.cancel(job)
    assert word() == "stopped"
    assert runner.records.reports(job) == {}
    assert not [name for name in files(runner.store) if name.endswith(".json")]


def test_a_canceled_shard_that_does_not_stop_is_killed_after_its_grace(runner, submit, monkeypatch, in_background):
    slow, job, killed = Slow(monkeypatch, deaf=True), submit({"w": WEIGHT}), threading.Event()
    word = in_background(replace(runner, grace_s=0.2, abort=killed.set), job)
    assert slow.entered.wait(20)
    runner.records.cancel(job)
    assert killed.wait(20)
    slow.leave.set()
    assert word() == "lost"


def test_one_that_stops_in_time_is_not_killed(runner, submit, monkeypatch, in_background):
    slow, job, killed = Slow(monkeypatch), submit({"w": WEIGHT}), threading.Event()
    word = in_background(replace(runner, grace_s=5.0, abort=killed.set), job)
    assert slow.entered.wait(20)
    runner.records.cancel(job)
    assert word() == "stopped"
    assert not killed.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "lease"]


def test_a_shard_whose_lease_was_lost_is_not_struck(runner, submit, monkeypatch, in_background):
    slow, job = Slow(monkeypatch, deaf=True), submit({"w": WEIGHT})
    word = in_background(runner, job)
    assert slow.entered.wait(20)
    runner.records.redis.delete(f"masksmith:job:{job}:lease:0")
    other = runner.records.take(job, 0, lease_s=60, attempts=3)
    slow.leave.set()
    assert word() == "lost"
    assert runner.records.reports(job) == {}
    assert runner.run(job, 0) == "held"
    assert runner.records.renew(other, 60)


def test_a_lease_is_renewed_for_as_long_as_the_solve_takes(runner, submit, monkeypatch, in_background):
    slow, job = Slow(monkeypatch), submit({"w": WEIGHT})
    word = in_background(replace(runner, lease_s=0.5), job)
    assert slow.entered.wait(20)
    until = time.monotonic() + 1.2
    while time.monotonic() < until:
        assert runner.run(job, 0) == "held"
    slow.leave.set()
    assert word() == "struck"


def test_a_worker_that_stops_gives_its_shard_back_as_it_was(runner, submit, monkeypatch, in_background):
    slow, job = Slow(monkeypatch), submit({"w": WEIGHT})
    for _ in range(5):
        slow.entered.clear()
        stopping = replace(runner, stopping=threading.Event(), attempts=2)
        word = in_background(stopping, job)
        assert slow.entered.wait(20)
        stopping.stopping.set()
        assert word() == "stopped"
    assert list(runner.records.stranded(3600.0)) == [(job, 0)]
    slow.leave.set()
    assert runner.run(job, 0) == "struck"


def test_a_crash_is_tried_again_and_counted(runner, submit, monkeypatch):
    job = submit({"a": WEIGHT, "b": -WEIGHT})

    def broken(*args, **options):
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(runner_module.ms, "solve", broken, raising=False)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                runner.run(job, 0)
            assert list(runner.records.stranded(3600.0)) == [(job, 0)]
    assert runner.run(job, 0) == "struck"
    assert runner.run(job, 1) == "struck"
    assert runner.records.state(job) is JobState.SUCCEEDED


def test_a_crash_that_lasts_fails_its_tensor_alone(runner, submit, monkeypatch):
    job = submit({"a": WEIGHT, "b": -WEIGHT})

    def broken(*args, **options):
        raise ZeroDivisionError("a bug with secrets")

    with monkeypatch.context() as patch:
        patch.setattr(runner_module.ms, "solve", broken, raising=False)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                runner.run(job, 0)
    assert runner.run(job, 0) == "done"
    assert runner.run(job, 1) == "struck"
    assert runner.records.state(job) is JobState.FAILED
    error = runner.records.reports(job)[0].error
    assert error.code == "internal"
    assert "ZeroDivisionError" in error.message
    assert "secrets" not in error.message


def test_a_store_that_is_full_fails_the_tensor_with_the_reason(runner, submit):
    job = submit({"w": WEIGHT})
    # A file where the folder should be: the store fails as a full disk would, whoever runs the tests.
    (Path(runner.store.url) / "masks").write_bytes(b"")
    for _ in range(3):
        with pytest.raises(StoreError):
            runner.run(job, 0)
    assert runner.records.state(job) is JobState.FAILED
    error = runner.records.reports(job)[0].error
    assert error.code == "store_unavailable"
    assert "disk" in error.message


def test_a_store_that_comes_back_in_time_costs_no_attempt(runner, submit, in_background, monkeypatch):
    monkeypatch.setattr(leased, "STORE_PAUSE_S", 0.05)
    job = submit({"w": WEIGHT})
    blocked = Path(runner.store.url) / "masks"
    blocked.write_bytes(b"")
    word = in_background(replace(runner, store_patience_s=60.0), job)
    time.sleep(0.3)
    blocked.unlink()
    assert word() == "struck"
    assert runner.records.state(job) is JobState.SUCCEEDED


def test_a_worker_that_dies_each_time_exhausts_the_attempts(runner, submit, records):
    job = submit({"w": WEIGHT})
    for _ in range(3):
        assert records.take(job, 0, lease_s=60, attempts=3).attempt <= 3
        records.redis.delete(f"masksmith:job:{job}:lease:0")
    assert runner.run(job, 0) == "exhausted"
    assert records.reports(job)[0].error.code == "attempts_exhausted"
