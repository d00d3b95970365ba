"""Leases of shards: taken, released, lost, retried and exhausted."""

import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis
from obstore.exceptions import BaseError as StoreError
from support.leases import run_shard, take
from support.processes import poll
from support.shards import WEIGHT, files

import masksmith as ms
from masksmith_wire.documents import JobState
from masksmith_worker import part_runner
from masksmith_worker.intake import Intake
from masksmith_worker.stages import solve as solve_stage


def test_a_leased_shard_is_not_taken(runner, submit, solves):
    job = submit({"w": WEIGHT})
    lease = take(runner.records, job, 0, lease_s=60, attempts=3)
    assert run_shard(runner, job, 0) == "held"
    assert solves == []
    runner.records.release(lease)
    assert run_shard(runner, job, 0) == "completed"


class Slow:
    """A solve that goes on, panel by panel, until it is stopped; `deaf` ones are not asked."""

    def __init__(self, monkeypatch, *, deaf=False):
        self.entered, self.leave = threading.Event(), threading.Event()
        self._solve, self._deaf = ms.solve, deaf
        monkeypatch.setattr(solve_stage.ms, "solve", self, raising=False)

    def __call__(self, *args, on_progress, **options):
        self.entered.set()
        until = time.monotonic() + 300
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
        thread = threading.Thread(target=lambda: words.append(run_shard(runner, job, shard)))
        thread.start()
        threads.append(thread)

        def word():
            thread.join(300)
            return words[0]

        return word

    yield start
    for thread in threads:
        thread.join()


def test_a_canceled_shard_stops(runner, submit, monkeypatch, in_background):
    slow, job = Slow(monkeypatch), submit({"w": WEIGHT})
    word = in_background(runner, job)
    assert slow.entered.wait(300)
    runner.records.cancel(job)
    assert word() == "stopped"
    assert runner.records.reports(job) == {}
    assert not [name for name in files(runner.store) if name.endswith(".json")]


def test_a_canceled_shard_that_does_not_stop_is_killed_after_its_grace(
    runner, runner_with, submit, monkeypatch, in_background
):
    slow, job, killed = Slow(monkeypatch, deaf=True), submit({"w": WEIGHT}), threading.Event()
    word = in_background(runner_with(grace_s=0.2, abort=killed.set), job)
    assert slow.entered.wait(300)
    runner.records.cancel(job)
    assert killed.wait(300)
    slow.leave.set()
    assert word() == "lost"


def test_one_that_stops_in_time_is_not_killed(runner, runner_with, submit, monkeypatch, in_background):
    slow, job, killed = Slow(monkeypatch), submit({"w": WEIGHT}), threading.Event()
    word = in_background(runner_with(grace_s=300.0, abort=killed.set), job)
    assert slow.entered.wait(300)
    runner.records.cancel(job)
    assert word() == "stopped"
    assert not killed.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "lease"]


def test_a_shard_whose_lease_was_lost_is_not_completed(runner, submit, monkeypatch, in_background):
    slow, job = Slow(monkeypatch, deaf=True), submit({"w": WEIGHT})
    word = in_background(runner, job)
    assert slow.entered.wait(300)
    runner.records.redis.delete(f"masksmith:job:{job}:lease:0")
    other = take(runner.records, job, 0, lease_s=60, attempts=3)
    slow.leave.set()
    assert word() == "lost"
    assert runner.records.reports(job) == {}
    assert run_shard(runner, job, 0) == "held"
    assert runner.records.renew(other, 60)


def test_a_lease_is_renewed_for_as_long_as_the_solve_takes(runner, runner_with, submit, monkeypatch, in_background):
    slow, job = Slow(monkeypatch), submit({"w": WEIGHT})
    word, key = in_background(runner_with(lease_s=60.0), job), f"masksmith:job:{job}:lease:0"
    assert slow.entered.wait(300)
    for _ in range(2):
        runner.records.redis.pexpire(key, 30_000)
        poll(lambda: runner.records.redis.pttl(key) > 30_000)
        assert run_shard(runner, job, 0) == "held"
    slow.leave.set()
    assert word() == "completed"


def test_a_worker_that_stops_releases_its_shard_without_an_attempt(
    runner, runner_with, submit, monkeypatch, in_background
):
    slow, job = Slow(monkeypatch), submit({"w": WEIGHT})
    for _ in range(5):
        slow.entered.clear()
        stopping = runner_with(attempts=2)
        word = in_background(stopping, job)
        assert slow.entered.wait(300)
        stopping.stopping.set()
        assert word() == "stopped"
    assert list(runner.records.schedule.requeue_lapsed_shards()) == [(job, 0)]
    slow.leave.set()
    assert run_shard(runner, job, 0) == "completed"


@contextmanager
def broken(monkeypatch, words):
    """Every solve meanwhile crashes."""

    def crash(*args, **options):
        raise ZeroDivisionError(words)

    with monkeypatch.context() as patch:
        patch.setattr(solve_stage.ms, "solve", crash, raising=False)
        yield


def test_a_crash_is_tried_again_and_counted(runner, submit, monkeypatch):
    job = submit({"a": WEIGHT, "b": -WEIGHT})

    with broken(monkeypatch, "a bug"):
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                run_shard(runner, job, 0)
            assert list(runner.records.schedule.requeue_lapsed_shards()) == [(job, 0)]
    assert run_shard(runner, job, 0) == "completed"
    assert run_shard(runner, job, 1) == "completed"
    assert runner.records.state(job) is JobState.SUCCEEDED


def test_a_crash_that_lasts_fails_its_tensor_alone(runner, submit, monkeypatch):
    job = submit({"a": WEIGHT, "b": -WEIGHT})

    with broken(monkeypatch, "a bug with secrets"):
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                run_shard(runner, job, 0)
    assert run_shard(runner, job, 0) == "done"
    assert run_shard(runner, job, 1) == "completed"
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
            run_shard(runner, job, 0)
    assert runner.records.state(job) is JobState.FAILED
    error = runner.records.reports(job)[0].error
    assert error.code == "store_unavailable"
    assert "disk" in error.message


def test_a_store_that_comes_back_in_time_costs_no_attempt(
    runner, runner_with, submit, in_background, monkeypatch, caplog
):
    monkeypatch.setattr(part_runner, "STORE_RETRY_S", 0.05)
    job = submit({"w": WEIGHT})
    blocked = Path(runner.store.url) / "masks"
    blocked.write_bytes(b"")
    word = in_background(runner_with(store_patience_s=300.0), job)
    poll(lambda: "waits for the store" in caplog.text)
    blocked.unlink()
    assert word() == "completed"
    assert runner.records.state(job) is JobState.SUCCEEDED


def test_a_long_shard_is_retried_from_the_first_failure_of_the_store(runner_with, submit, monkeypatch):
    """The time before the failure, an hour here, does not count."""
    monkeypatch.setattr(part_runner, "STORE_RETRY_S", 0.01)
    runner, clock, works = runner_with(store_patience_s=60.0), SimpleNamespace(time=0.0), []
    monkeypatch.setattr(part_runner, "time", SimpleNamespace(monotonic=lambda: clock.time, sleep=time.sleep))
    work = runner.work

    def fail_once(*arguments):
        works.append(arguments)
        clock.time += 3600.0
        if len(works) == 1:
            raise StoreError("away")
        clock.time -= 3600.0
        return work(*arguments)

    monkeypatch.setattr(runner, "work", fail_once)
    assert run_shard(runner, submit({"w": WEIGHT}), 0) == "completed"
    assert len(works) == 2


def test_a_broker_that_fails_after_a_long_shard_does_not_hide_its_end(caplog):
    def messages_wanted(queue):
        raise redis.ConnectionError("away")

    lease = SimpleNamespace(is_long=True)
    Intake().send_messages_after_long_shard(SimpleNamespace(messages_wanted=messages_wanted), lease)
    assert "cannot send messages, which the sweeper will do later: away" in caplog.text


def test_a_worker_that_dies_each_time_exhausts_the_attempts(runner, submit, records):
    job = submit({"w": WEIGHT})
    for _ in range(3):
        assert take(records, job, 0, lease_s=60, attempts=3).attempt <= 3
        records.redis.delete(f"masksmith:job:{job}:lease:0")
    assert run_shard(runner, job, 0) == "exhausted"
    assert records.reports(job)[0].error.code == "attempts_exhausted"
