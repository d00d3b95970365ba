"""Results: computed once, referenced before they are read, computed again if a part is missing."""

import numpy as np
import pytest
from support.leases import run_shard
from support.shards import TRANSPOSABLE, WEIGHT, files, mask_of, run_all

import masksmith as ms
from masksmith.solvers.min_cost_flow import MinCostFlow
from masksmith_state.blobs.names import result_name, result_report_name
from masksmith_state.blobs.retention import Retention


def test_a_result_is_referenced_before_it_is_read(runner, submit, store, monkeypatch):
    run_all(runner, first := submit({"w": WEIGHT}))
    second = submit({"w": WEIGHT})
    retention = Retention(runner.records, runner.references, store, 10.0, 10.0)
    verify = type(store).verify

    def looked(self, name, digest):
        # The only other job that holds it is deleted at this very moment.
        if name.startswith("masks/"):
            runner.records.delete(first)
            assert retention.delete_unreferenced_results() == 0
        return verify(self, name, digest)

    monkeypatch.setattr(type(store), "verify", looked)
    run_all(runner, second)
    monkeypatch.undo()
    assert mask_of(runner, second).shape == WEIGHT.shape
    runner.records.delete(second)
    assert retention.delete_unreferenced_results() == 1
    assert [name for name in files(store) if name.startswith("masks")] == []


def test_the_same_work_is_done_once(runner, submit, solves):
    first, second = (submit({name: WEIGHT}, shard_bytes=48 * 4 * 16) for name in ("a", "a"))
    assert run_all(runner, first) == ["completed", "completed"]
    assert len(solves) == 2
    assert run_all(runner, second) == ["completed", "completed"]
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


def test_a_result_ended_by_a_time_limit_is_not_reused(runner, submit, solves):
    jobs = [submit({"w": np.tile(WEIGHT, (40, 30))}, TRANSPOSABLE, time_limit_s=1e-9) for _ in range(2)]
    results = []
    for job in jobs:
        assert set(run_all(runner, job)) == {"completed"}
        reports = runner.records.reports(job).values()
        assert {report.status for report in reports} == {"time_limit"}
        assert ms.verify(mask_of(runner, job), TRANSPOSABLE).ok
        results += [report.result for report in reports]
    assert len(set(results)) == len(results) == len(solves)


def test_a_second_run_does_nothing(runner, submit, solves):
    job = submit({"w": WEIGHT})
    assert run_shard(runner, job, 0) == "completed"
    before = files(runner.store)
    assert run_shard(runner, job, 0) == "closed"
    assert (len(solves), files(runner.store)) == (1, before)
    other = submit({"a": WEIGHT, "b": -WEIGHT})
    assert [run_shard(runner, other, 0), run_shard(runner, other, 0)] == ["completed", "done"]
    assert run_shard(runner, "unknown", 0) == "closed"


def test_the_plan_of_a_job_is_read_once_by_a_runner(runner, submit, monkeypatch):
    first, second = submit({"a": WEIGHT, "b": -WEIGHT}), submit({"a": WEIGHT})
    reads, read = [], runner.records.read
    monkeypatch.setattr(runner.records, "read", lambda job: reads.append(job) or read(job))
    assert [run_shard(runner, first, shard) for shard in (0, 1)] == ["completed"] * 2
    assert run_shard(runner, second, 0) == "completed"
    assert reads == [first, second]
