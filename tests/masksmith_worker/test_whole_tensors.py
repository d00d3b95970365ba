"""Patterns that bind a whole tensor: one shard, the library's mask."""

import numpy as np
import pytest
from support.leases import run_shard

import masksmith as ms
from masksmith_service.jobs.documents import tensor_view
from masksmith_state.blobs.names import result_name
from masksmith_wire.documents import JobState
from masksmith_wire.masks import unpack

WEIGHTS = np.random.default_rng(3).standard_normal((2, 40, 24)).astype(np.float32)


@pytest.mark.parametrize(
    ("pattern", "options"),
    [
        ("10%", {}),
        ("block 8x4 50% balance both", {}),
        ("block 16x16 25% norm l2", {"ragged": "dense"}),
        ("channels out 50%", {}),
        ("channels 50%", {"axis": "out"}),
    ],
)
def test_every_tensor_is_one_shard_with_the_librarys_mask(runner, submit, pattern, options):
    job = submit({"a": WEIGHTS[0], "b": WEIGHTS[1]}, pattern, shard_bytes=100, **options)
    assert {index: shard.tensor for index, shard in runner.records.shards(job).items()} == {0: 0, 1: 1}
    assert [run_shard(runner, job, index) for index in (0, 1)] == ["completed", "completed"]
    assert runner.records.state(job) is JobState.SUCCEEDED
    for index, report in runner.records.reports(job).items():
        packed = np.frombuffer(runner.store.get(result_name(report.result)), np.uint8)
        found = ms.solve(ms.magnitude(WEIGHTS[index]), ms.parse(pattern, **options))
        assert (unpack(packed, WEIGHTS[index].shape) == found.mask).all()
        assert (report.status, report.objective, report.kept) == ("optimal", found.objective, found.kept)


def test_panels_of_v_rows_go_to_shards_of_their_own(runner, submit):
    job = submit({"a": WEIGHTS[0]}, "8:2:8", shard_bytes=16 * 24 * 4)
    shards = runner.records.shards(job)
    assert [(shard.first, shard.last) for shard in shards.values()] == [(0, 16), (16, 32), (32, 40)]
    assert {run_shard(runner, job, index) for index in shards} == {"completed"}
    reports = runner.records.reports(job).values()
    found = ms.solve(ms.magnitude(WEIGHTS[0]), "8:2:8")
    assert sum(report.objective for report in reports) == pytest.approx(found.objective)
    assert {report.status for report in reports} == {"optimal"}


def test_reports_say_what_score_is_kept_whatever_the_norm_of_blocks(runner, submit):
    job = submit({"a": WEIGHTS[0]}, "block 8x4 50% norm l2")
    assert run_shard(runner, job, 0) == "completed"
    [report] = runner.records.reports(job).values()
    plan = runner.records.read(job).plan
    [tensor], pattern = plan.tensors, plan.options.pattern
    found = ms.solve(ms.magnitude(WEIGHTS[0]), "block 8x4 50% norm l2")
    assert (report.objective, report.kept_score) == (found.objective, found.unshifted_objective)
    view = tensor_view(tensor, [report], JobState.SUCCEEDED, pattern, ms.parse)
    assert view.retained == pytest.approx(found.retained)
