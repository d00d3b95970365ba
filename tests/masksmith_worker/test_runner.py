"""What a worker finds: masks of every kind of tensor, faults named, time limits kept."""

import numpy as np
import pytest
import torch
from support.shards import TRANSPOSABLE, WEIGHT, mask_of, run_all

import masksmith as ms
from masksmith_state.blobs.names import upload_name
from masksmith_wire.documents import JobState
from masksmith_worker.stages import solve as solve_stage


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
    assert set(words) == {"completed"}
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
    assert run_all(runner, job) == ["completed"]
    assert (mask_of(runner, job) == ms.solve(weight.double(), TRANSPOSABLE).mask.numpy()).all()


def test_the_most_negative_int8_is_the_largest(runner, submit):
    weight = np.full((1, 4), 127, np.int8)
    weight[0, 3] = -128
    job = submit({"w": weight}, "1:4")
    assert run_all(runner, job) == ["completed"]
    assert mask_of(runner, job).tolist() == [[False, False, False, True]]


def test_a_convolution_is_solved_with_its_channels_last(runner, submit):
    weight = np.random.default_rng(1).standard_normal((8, 4, 3, 3)).astype(np.float32)
    job = submit({"w": weight}, "2:4", shard_bytes=4 * 36 * 4)
    assert run_all(runner, job) == ["completed", "completed"]
    mask = mask_of(runner, job)
    assert mask.shape == weight.shape
    assert (mask == ms.solve(ms.magnitude(weight), "2:4").mask).all()
    assert (mask.sum(axis=1) == 2).all()


def test_given_scores_are_taken_as_they_are(runner, submit):
    scores = np.abs(WEIGHT)
    job = submit({"w": scores}, scores="given")
    assert run_all(runner, job) == ["completed"]
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
    assert set(run_all(runner, job)) == {"completed"}
    assert runner.records.state(job) is JobState.FAILED
    shards, reports = runner.records.shards(job), runner.records.reports(job)
    (error,) = [report.error for report in reports.values() if report.error]
    assert (error.code, error.index) == ("invalid_scores", list(index))
    advice = "; scores must not be negative; as scores of a weight use its magnitude (in Python, ms.magnitude)"
    assert error.message == f"tensor 'bad': {reason} at {list(index)}" + (advice if "negative" in reason else "")
    assert all(reports[at].status == "optimal" for at, shard in shards.items() if shard.tensor == 1)
    assert (mask_of(runner, job, 1) == ms.solve(good, ms.parse("2:4", axis=options.get("axis", "in"))).mask).all()


def test_a_bad_value_in_bfloat16_and_in_a_convolution(runner, submit):
    weight = torch.ones((32, 4, 3, 3), dtype=torch.bfloat16)
    weight[21, 2, 1, 0] = float("nan")
    job = submit({"w": weight}, shard_bytes=16 * 36 * 2)
    assert run_all(runner, job) == ["completed", "completed"]
    assert runner.records.reports(job)[1].error.index == [21, 2, 1, 0]


def test_scores_that_add_up_to_infinity_are_refused(runner, submit):
    job = submit({"w": np.full((4, 4), 1e308)})
    assert run_all(runner, job) == ["completed"]
    error = runner.records.reports(job)[0].error
    assert (error.code, error.message) == (
        "invalid_scores",
        "tensor 'w': the sum of the scores exceeds float64; scale them down",
    )


def test_a_solver_that_does_not_fit_the_pattern_says_so(runner, submit):
    job = submit({"w": WEIGHT}, "2:4", solver="top-k")
    # As another version of the service may have recorded it.
    plan = runner.records.redis.hget(f"masksmith:job:{job}", "plan")
    runner.records.redis.hset(f"masksmith:job:{job}", "plan", plan.replace("top-k", "min-cost-flow"))
    assert run_all(runner, job) == ["completed"]
    error = runner.records.reports(job)[0].error
    assert error.code == "solver_refused"
    assert "'w'" in error.message
    assert "top-k" in error.message


def test_an_upload_that_is_gone(runner, submit):
    job = submit({"w": WEIGHT})
    runner.store.delete(upload_name(runner.records.read(job).plan.tensors[0].digest))
    assert run_all(runner, job) == ["completed"]
    error = runner.records.reports(job)[0].error
    assert (error.code, error.message) == ("upload_not_found", "tensor 'w': its upload no longer exists; send it again")


@pytest.mark.parametrize("left", [0, 10, -1])
def test_an_upload_that_was_cut_in_the_store_is_named_and_deleted(runner, submit, store, left):
    job = submit({"w": WEIGHT})
    digest = runner.records.read(job).plan.tensors[0].digest
    runner.references.link("ann", digest, 1, None)
    store.put(upload_name(digest), store.get(upload_name(digest))[:left])
    assert run_all(runner, job) == ["completed"]
    error = runner.records.reports(job)[0].error
    assert (error.code, error.message) == (
        "upload_damaged", "tensor 'w': its upload was damaged in the store and was set aside; send it again",
    )  # fmt: skip
    assert store.size(upload_name(digest)) is None
    assert runner.references.touch("ann", digest, any_owner=True) is None


def test_a_time_limit_is_the_jobs(runner, submit, solves, monkeypatch):
    job = submit({"w": np.tile(WEIGHT, (40, 30))}, TRANSPOSABLE, shard_bytes=2**16, time_limit_s=60_000.0)
    limits = []
    solve = solve_stage.ms.solve

    def late(*args, **options):
        limits.append(options["time_limit_s"])
        # As if this shard had taken 25,000 s, so that the seconds that it takes do not matter.
        started = float(runner.records.redis.hget(f"masksmith:job:{job}", "started_at"))
        runner.records.redis.hset(f"masksmith:job:{job}", "started_at", started - 25_000)
        return solve(*args, **options)

    monkeypatch.setattr(solve_stage.ms, "solve", late, raising=False)
    assert len(set(run_all(runner, job))) == 1
    assert [round(limit / 5000) * 5000 for limit in limits[:3]] == [60_000, 35_000, 10_000]
    assert set(limits[3:]) == {1e-9}
    assert limits[3:]
    statuses = [report.status for _, report in sorted(runner.records.reports(job).items())]
    assert statuses[:3] == ["optimal"] * 3
    assert set(statuses[3:]) == {"time_limit"}


def test_scores_that_underflow_are_no_fault_of_a_calibration(runner, submit):
    job = submit({"w": np.full((4, 4), 1e-30, np.float32)}, scores="magnitude power=2")
    assert run_all(runner, job) == ["completed"]
    error = runner.records.reports(job)[0].error
    assert (error.code, error.message) == (
        "invalid_scores",
        "tensor 'w': all scores underflow in float32; scale the weight up",
    )
