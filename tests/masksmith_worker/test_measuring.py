"""The summed measures of shards are those of the whole mask."""

import math

import numpy as np
import pytest
from support.leases import run_shard

import masksmith as ms
from masksmith import measures
from masksmith_service.jobs.documents import job_view
from masksmith_state.blobs.names import result_name, upload_name
from masksmith_state.jobs.shards import MaskPart
from masksmith_wire.masks import pack

RNG = np.random.default_rng(4)
WEIGHT = RNG.standard_normal((70, 40)).astype(np.float32)
CONV = RNG.standard_normal((40, 8, 3, 3)).astype(np.float32)


def run(runner, job):
    assert {run_shard(runner, job, shard) for shard in runner.records.shards(job)} == {"completed"}
    records = runner.records
    return job_view(records.read(job), records.shards(job), records.reports(job)).tensors


@pytest.mark.parametrize("weight", [WEIGHT, CONV], ids=["linear", "convolution"])
@pytest.mark.parametrize(
    "pattern", ["2:4", "transposable <=2:4", "8:16", "block 16x8 30%", "double 2:4", "20%", "hybrid 8x8 2:4 30%"]
)
def test_every_report_has_them(runner, submit, weight, pattern):
    row = weight[0].nbytes
    [found] = run(runner, submit({"w": weight}, pattern, shard_bytes=17 * row))
    expected = ms.report(ms.solve(ms.magnitude(weight), pattern), item_bytes=4)
    assert found.fill == pytest.approx(expected.fill)
    assert found.storage_bytes == dict(expected.storage_bytes)
    assert (found.diversity is None) == (expected.diversity is None)
    if expected.diversity is not None:
        assert found.diversity.log2_count == expected.diversity.log2_count
        assert found.diversity.count == str(expected.diversity.count)


def test_blocks_are_not_counted_where_shards_cut_them(runner, submit):
    [found] = run(runner, submit({"w": WEIGHT}, "2:4", shard_bytes=5 * 40 * 4))
    assert found.storage_bytes["bsr"] is None
    assert found.storage_bytes["two_four"] is not None


def test_singular_values_on_request(runner, submit):
    [plain] = run(runner, submit({"w": WEIGHT}, "2:4", shard_bytes=40 * 4 * 16))
    assert plain.spectrum is None
    job = submit({"w": WEIGHT}, "2:4", shard_bytes=40 * 4 * 16, spectrum=True)
    assert len(runner.records.shards(job)) == 1
    [found] = run(runner, job)
    expected = measures.spectrum(WEIGHT, ms.solve(ms.magnitude(WEIGHT), "2:4").mask)
    assert found.spectrum.model_dump() == pytest.approx(
        {"least": expected.least, "mean": expected.mean, "most": expected.most}
    )


@pytest.mark.parametrize("weight", [WEIGHT, CONV], ids=["linear", "convolution"])
@pytest.mark.parametrize("is_bool", [False, True])
def test_changes_against_a_mask_whose_parts_lie_otherwise(runner, submit, weight, is_bool):
    mask = RNG.random(weight.shape) < 0.5
    parts = []
    for first, last in ((0, 23), (23, 31), (31, len(weight))):
        body = mask[first:last].tobytes() if is_bool else pack(mask[first:last]).tobytes()
        runner.store.put(f"old/{first}", b"xyz" + body)
        parts.append(MaskPart(blob=f"old/{first}", start=3, first=first, last=last, is_bool=is_bool))
    job = submit({"w": weight}, "2:4", shard_bytes=weight[0].nbytes * 16, previous={"w": parts})
    [found] = run(runner, job)
    expected = measures.change(ms.solve(ms.magnitude(weight), "2:4").mask, mask)
    assert (found.change.sad, found.change.added, found.change.dropped, found.change.flip_rate) == (
        expected.sad, expected.added, expected.dropped, expected.flip_rate,
    )  # fmt: skip
    again = submit({"w": weight}, "2:4", shard_bytes=weight[0].nbytes * 16)
    assert run(runner, again)[0].change is None


def test_unused_bits_of_an_uploaded_mask_are_not_counted(runner, submit):
    weight = WEIGHT[:, :36]
    mask = ms.solve(ms.magnitude(weight), "2:4").mask
    packed = pack(mask)
    packed[:, -1] |= 0xF0
    runner.store.put("old/0", packed.tobytes())
    parts = [MaskPart(blob="old/0", start=0, first=0, last=len(weight))]
    [found] = run(runner, submit({"w": weight.copy()}, "2:4", shard_bytes=16 * 36 * 4, previous={"w": parts}))
    assert (found.change.added, found.change.dropped) == (0, 0)


@pytest.mark.parametrize(
    ("blob", "code", "words"),
    [
        (upload_name("0" * 64), "upload_not_found", "the mask of the masks file given as `previous`"),
        (result_name("0" * 64), "result_not_found", "the mask of the job given as `previous`"),
    ],
)
def test_a_previous_mask_that_is_gone_is_an_error_of_its_tensor(runner, submit, blob, code, words):
    job = submit({"w": WEIGHT}, "2:4", previous={"w": [MaskPart(blob=blob, start=0, first=0, last=70)]})
    [found] = run(runner, job)
    assert found.error.code == code
    assert "was deleted or damaged meanwhile" in found.error.message
    assert words in found.error.message


@pytest.mark.parametrize("score", [1e305, 6e304])
def test_a_tensor_whose_scores_may_sum_to_infinity_is_refused(runner, submit, score):
    weight = np.full((32, 48), score)
    if score == 1e305:
        with pytest.raises(ms.ScoresError, match="exceeds float64"):
            ms.solve(np.concatenate([weight, weight]), "2:4")
    assert math.isfinite(ms.solve(weight, "2:4").total_score)
    job = submit({"w": np.concatenate([weight, weight])}, "2:4", shard_bytes=weight.nbytes)
    [found] = run(runner, job)
    assert found.error.code == "invalid_scores"
    assert "'w': the sums of scores or errors may exceed float64; scale the tensor down" in found.error.message
    [whole] = run(runner, submit({"w": weight}, "2:4", shard_bytes=weight.nbytes))
    assert whole.total_score == pytest.approx(32 * 48 * score)


def test_large_sums_within_range_are_reported(runner, submit):
    weight = np.full((64, 48), 2e304)
    [found] = run(runner, submit({"w": weight}, "2:4", shard_bytes=weight.nbytes // 2))
    assert (found.error, found.retained) == (None, pytest.approx(0.5))
