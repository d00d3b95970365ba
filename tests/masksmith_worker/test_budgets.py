"""Budgets of jobs: shards share the measuring, and every tensor gets the pattern that the library gives it."""

import numpy as np
import pytest
from support.leases import run_shard
from support.shards import mask_of, run_all

import masksmith as ms
from masksmith_service.jobs.documents import job_view
from masksmith_service.jobs.results import masks_file
from masksmith_state.blobs.names import upload_name
from masksmith_wire.documents import JobState
from masksmith_worker.stages import allocate
from masksmith_worker.stages.load import DamagedUploadError, InputReader
from masksmith_worker.stages.memory import InsufficientMemoryError

RNG = np.random.default_rng(9)
LAYERS = {
    "large": (RNG.standard_normal((32, 24)) * 2).astype(np.float32),
    "plain": RNG.standard_normal((20, 24)).astype(np.float32),
    "small": (RNG.standard_normal((8, 8)) / 2).astype(np.float32),
}


def view(runner, job):
    records = runner.records
    return job_view(records.read(job), records.shards(job), records.reports(job))


@pytest.mark.parametrize("pattern", ["40%", "block 4x8 40%", "2:4", "transposable 2:4", "8:16"])
def test_every_tensor_gets_the_librarys_pattern_and_mask(runner, submit, pattern):
    budget = ms.Budget("40%", {"small": "25%"})
    job = submit(LAYERS, pattern, budget="40%", floors=["small=25%"], shard_bytes=24 * 4 * 8)
    assert set(run_all(runner, job)) == {"completed"}
    expected = ms.allocate({name: abs(layer) for name, layer in LAYERS.items()}, pattern, budget)
    document = view(runner, job)
    assert {tensor.name: tensor.pattern for tensor in document.tensors} == {
        name: str(rule) for name, rule in expected.patterns.items()
    }
    assert (document.budget, document.floors, document.budget_gap) == ("40%", ["small=25%"], 0.0)
    solutions = ms.solve_many({name: abs(layer) for name, layer in LAYERS.items()}, expected.patterns)
    for number, name in enumerate(sorted(LAYERS)):
        assert (mask_of(runner, job, number) == solutions[name].mask).all()
    records = runner.records
    file = masks_file(records.read(job), records, as_bool=False)
    assert str(expected.patterns["large"]) in file.header[8:].decode()


def test_a_measurement_of_one_shard_is_reused_by_others(runner, submit, monkeypatch):
    seen = []
    measure = allocate.measure_from
    monkeypatch.setattr(allocate, "measure_from", lambda *given: seen.append(given[3:]) or measure(*given))
    job = submit(LAYERS, "2:4", budget="50%", shard_bytes=24 * 4 * 8)
    shards = runner.records.shards(job)
    assert run_shard(runner, job, len(shards) - 1) == "completed"
    assert len(seen) == len(set(seen)) == len(shards) > 5
    assert seen[0] == ("small", shards[len(shards) - 1].first)
    assert run_shard(runner, job, 0) == "completed"
    assert len(seen) == len(shards)


def test_measurements_in_float32_are_not_used_beside_a_float64_tensor(runner, submit, store):
    layers = {"plain": LAYERS["plain"], "wide": RNG.standard_normal((16, 24)) * 3}
    expected = ms.allocate({name: abs(layer) for name, layer in layers.items()}, "50%", "50%")
    alone = submit(layers, "50%", budget="50%", only=["plain"])
    run_all(runner, alone)
    job = submit(layers, "50%", budget="50%")
    assert set(run_all(runner, job)) == {"completed"}
    assert {tensor.name: tensor.pattern for tensor in view(runner, job).tensors} == {
        name: str(rule) for name, rule in expected.patterns.items()
    }


def test_an_invalid_score_fails_the_allocation_of_the_budget_in_every_tensor(runner, submit):
    bad = LAYERS | {"plain": LAYERS["plain"].copy()}
    bad["plain"][9, 2] = np.inf
    job = submit(bad, "50%", budget="50%")
    run_all(runner, job)
    assert runner.records.state(job) is JobState.FAILED
    for tensor in view(runner, job).tensors:
        assert tensor.error.code == "invalid_budget"
        assert "tensor 'plain': infinity at [9, 2]" in tensor.error.message


def test_a_missing_upload_fails_the_allocation_with_advice(runner, submit):
    job = submit(LAYERS, "50%", budget="50%")
    runner.store.delete(upload_name(runner.records.read(job).plan.tensors[0].digest))
    run_all(runner, job)
    for tensor in view(runner, job).tensors:
        assert tensor.error.code == "invalid_budget"
        assert "an upload of the job's tensors no longer exists; send them again" in tensor.error.message


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DamagedUploadError("0" * 64), "upload_damaged", "the upload of tensor 'plain' was damaged in the store"),
        (InsufficientMemoryError("a matrix needs 9 bytes"), "insufficient_memory", "tensor 'plain': a matrix needs"),
    ],
    ids=["damage", "memory"],
)
def test_an_error_of_another_tensor_is_reported_under_its_name(runner, submit, monkeypatch, error, code, message):
    read = InputReader.rows

    def failing_read(self, tensor, *rows):
        if tensor.name == "plain":
            raise error
        return read(self, tensor, *rows)

    monkeypatch.setattr(InputReader, "rows", failing_read)
    job = submit(LAYERS, "50%", budget="50%")
    assert run_shard(runner, job, 0) == "completed"
    large = view(runner, job).tensors[0]
    assert (large.name, large.error.code) == ("large", code)
    assert f"tensor 'large': the budget cannot be divided: {message}" in large.error.message


def test_scores_may_come_from_data(runner, submit):
    job = submit(
        {name: abs(layer).astype(np.float64) for name, layer in LAYERS.items()}, "30%", budget="30%", scores="given"
    )
    assert set(run_all(runner, job)) == {"completed"}
    expected = ms.allocate({name: abs(layer).astype(np.float64) for name, layer in LAYERS.items()}, "30%", "30%")
    assert {tensor.name: tensor.pattern for tensor in view(runner, job).tensors} == {
        name: str(rule) for name, rule in expected.patterns.items()
    }
