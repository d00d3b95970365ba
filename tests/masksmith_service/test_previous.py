"""Previous masks, of an earlier job or an uploaded file: located part by part, or rejected by name."""

import json

import numpy as np
import pytest
import safetensors.numpy
from support.leases import run_shard, take

from masksmith_state.blobs.names import piece_list_name, result_name, upload_name
from masksmith_state.blobs.references import BlobReferences
from masksmith_state.blobs.retention import Retention
from masksmith_state.blobs.store import BlobStore
from masksmith_state.jobs.reports import ShardReport
from masksmith_wire.masks import MaskInfo, file_header, pack
from masksmith_worker.runner import ShardRunner

MASK = np.random.default_rng(0).random((8, 8)) < 0.5


@pytest.fixture
def finished(app, client, settings, save, records):
    """A job of two shards that is done; gives its id."""
    app.state.masksmith.settings.shard_bytes = 4 * 8 * 4
    job = client.post("/v1/masks", params={"pattern": "2:4"}, content=save({"w": np.ones((8, 8), np.float32)})).json()
    store = BlobStore(settings.store_url)
    for shard in (0, 1):
        key = f"{shard:064x}"
        assert BlobReferences(records.redis, store).add_result_reference(job["id"], key)
        store.put(result_name(key), pack(MASK[4 * shard :][:4]).tobytes())
        lease = take(records, job["id"], shard, lease_s=60, attempts=3)
        assert records.complete(lease, ShardReport(result=key, status="optimal", kept=16, entries=32))
    return job["id"]


def ask(client, data, previous):
    return client.post("/v1/masks", params={"pattern": "2:4", "previous": previous}, content=data)


def planned(app, answer):
    assert answer.status_code == 202, answer.text
    return app.state.masksmith.records.read(answer.json()["id"]).plan.tensors


def test_an_earlier_jobs_masks_are_found_part_by_part(app, client, save, finished):
    [tensor] = planned(app, ask(client, save({"w": np.zeros((8, 8), np.float32)}), finished))
    assert [(part.blob, part.first, part.last) for part in tensor.previous] == [
        (result_name(f"{shard:064x}"), 4 * shard, 4 * shard + 4) for shard in (0, 1)
    ]


@pytest.mark.parametrize("route", ["request", "retention"])
def test_masks_of_a_deleted_job_stay_while_a_job_compares_with_them(client, save, records, settings, route):
    store = BlobStore(settings.store_url)
    retention = Retention(records, BlobReferences(records.redis, store), store, result_age_s=-1, upload_age_s=1e9)
    runner = ShardRunner(records, store, lease_s=30.0)
    weight = np.random.default_rng(1).random((8, 8), np.float32)
    earlier = client.post("/v1/masks", params={"pattern": "2:4"}, content=save({"w": weight})).json()["id"]
    assert run_shard(runner, earlier, 0) == "completed"
    result = result_name(records.report(earlier, 0).result)
    later = ask(client, save({"w": 1 - weight}), earlier).json()["id"]
    if route == "request":
        assert client.delete(f"/v1/jobs/{earlier}").status_code == 204
    else:
        assert retention.sweep(orphans=False).jobs == 1
    assert client.get(f"/v1/jobs/{earlier}").status_code == 404
    assert run_shard(runner, later, 0) == "completed"
    [tensor] = client.get(f"/v1/jobs/{later}").json()["tensors"]
    assert tensor["change"]["sad"] == 64  # 2:4 of `1 - weight` keeps what 2:4 of `weight` drops.
    assert retention.delete_unreferenced_results() == 1
    assert store.size(result) is None


def test_a_previous_mask_whose_list_of_digests_is_lost_is_checked_by_the_digest_in_its_report(
    client, save, records, settings
):
    store, weight = BlobStore(settings.store_url), np.random.default_rng(1).random((8, 8), np.float32)
    earlier = client.post("/v1/masks", params={"pattern": "2:4"}, content=save({"w": weight})).json()["id"]
    assert run_shard(ShardRunner(records, store, lease_s=30.0), earlier, 0) == "completed"
    later = ask(client, save({"w": 1 - weight}), earlier).json()["id"]
    store.objects.delete(piece_list_name(result_name(records.report(earlier, 0).result)))
    assert run_shard(ShardRunner(records, BlobStore(settings.store_url), lease_s=30.0), later, 0) == "completed"
    [tensor] = client.get(f"/v1/jobs/{later}").json()["tensors"]
    assert tensor["change"]["sad"] == 64


def test_masks_that_are_deleted_before_the_job_is_created_are_refused(client, save, finished, records, check_problem):
    for shard in (0, 1):
        records.redis.delete(f"masksmith:result:{shard:064x}")
    answer = ask(client, save({"w": np.zeros((8, 8), np.float32)}), finished)
    check_problem(answer, 404, "result_not_found", "deleted meanwhile; name another job")


@pytest.mark.parametrize("as_bool", [False, True])
def test_an_uploaded_masks_file_can_be_the_previous_mask(app, client, save, put, as_bool):
    body = MASK.tobytes() if as_bool else pack(MASK).tobytes()
    data = file_header({"w": MaskInfo(shape=[8, 8], pattern="2:4")}, as_bool=as_bool) + body
    digest = put(data)
    [tensor] = planned(app, ask(client, save({"w": np.zeros((8, 8), np.float32)}), digest))
    [part] = tensor.previous
    assert (part.blob, part.first, part.last, part.is_bool) == (upload_name(digest), 0, 8, as_bool)
    assert data[part.start :] == body


def test_previous_masks_that_do_not_fit(client, save, put, finished, check_problem):
    other = save({"other": np.zeros((8, 8), np.float32)})
    answer = ask(client, other, finished)
    check_problem(answer, 422, "invalid_previous", "no mask for any tensor of this job", "its masks: w")
    narrow = save({"w": np.zeros((8, 4), np.float32)})
    check_problem(ask(client, narrow, finished), 422, "invalid_previous", "'w'", "[8, 4]", "[8, 8]")
    weights = put(save({"w": np.zeros((8, 8), np.float32)}))
    good = save({"w": np.zeros((8, 8), np.float32)})
    check_problem(ask(client, good, weights), 422, "invalid_previous", "not a masks file", "'w'")
    check_problem(ask(client, good, "ab12"), 404, "job_not_found", "ab12")
    check_problem(ask(client, good, "0" * 64), 409, "upload_not_found")
    check_problem(ask(client, good, "XYZ"), 422, "invalid_document", "previous")


def test_metadata_that_lies_is_no_masks_file(client, save, put, check_problem):
    metadata = {"masksmith": json.dumps({"w": {"shape": [8, 800], "pattern": "2:4"}})}
    digest = put(safetensors.numpy.save({"w": np.zeros((8, 1), np.uint8)}, metadata))
    good = save({"w": np.zeros((8, 8), np.float32)})
    check_problem(ask(client, good, digest), 422, "invalid_previous", "neither bool nor a packed mask")
    scalar = put(save({"w": MASK, "flag": np.array(True)}))
    check_problem(ask(client, good, scalar), 422, "invalid_previous", "not a masks file", "'flag' is a scalar")


@pytest.mark.parametrize("as_bool", [False, True])
def test_a_masks_file_that_lists_a_mask_twice_is_refused(client, save, put, check_problem, as_bool):
    listed = '"w": {"shape": [8, 8], "pattern": "2:4"}'
    stored = {"w": MASK if as_bool else pack(MASK)}
    digest = put(safetensors.numpy.save(stored, {"masksmith": f"{{{listed}, {listed}}}"}))
    answer = ask(client, save({"w": np.zeros((8, 8), np.float32)}), digest)
    check_problem(answer, 422, "invalid_previous", digest, "is ambiguous", "'w' is given twice")


def test_tied_tensors_are_solved_once_and_both_have_results(client, put, save, records, settings):
    digest = put(save({"x": np.ones((8, 8), np.float32)}))
    inputs = [{"name": name, "digest": digest, "key": "x"} for name in ("a", "b")]
    job = client.post("/v1/jobs", json={"pattern": "2:4", "tensors": inputs}).json()
    assert job["progress"]["total"] == 1
    BlobStore(settings.store_url).put(result_name("0" * 64), pack(MASK).tobytes())
    lease = take(records, job["id"], 0, lease_s=60, attempts=3)
    assert records.complete(lease, ShardReport(result="0" * 64, status="optimal", objective=3, kept=32, entries=64))
    job = client.get(f"/v1/jobs/{job['id']}").json()
    assert [(tensor["name"], tensor["objective"]) for tensor in job["tensors"]] == [("a", 3.0), ("b", 3.0)]
    found = safetensors.numpy.load(client.get(f"/v1/jobs/{job['id']}/masks?format=bool").content)
    assert (found["a"] == MASK).all()
    assert (found["b"] == MASK).all()


def test_tensors_too_large_for_their_pattern_are_skipped_unless_they_are_named(
    client, save, check_problem, monkeypatch
):
    monkeypatch.setattr("masksmith.layouts.whole_tensors.WHOLE_BYTES", 200)
    data = save({"large": np.ones((8, 8), np.float32), "small": np.ones((4, 4), np.float32)})
    job = client.post("/v1/masks", params={"pattern": "50%"}, content=data).json()
    assert [tensor["name"] for tensor in job["tensors"]] == ["small"]
    assert "50% needs the whole tensor" in job["skipped"][0]["reason"]
    named = client.post("/v1/masks", params={"pattern": "50%", "layers": "large"}, content=data)
    check_problem(named, 422, "tensor_does_not_fit", "'large'", "256 bytes")
    fine = client.post("/v1/masks", params={"pattern": "2:4"}, content=data).json()
    assert len(fine["tensors"]) == 2
    spectrum = client.post("/v1/masks", params={"pattern": "2:4", "spectrum": "true"}, content=data).json()
    assert "spectrum needs" in spectrum["skipped"][0]["reason"]


@pytest.mark.parametrize(
    ("pattern", "solver", "words"),
    [
        ("2:4", "exact", "top-k solves plain n:m ones exactly"),
        ("2:4", "greedy", "greedy needs column budgets"),
        ("transposable 2:4", "top-k", "exact solves transposable ones"),
        ("transposable 2:8", "enumerate", "exact solves every size"),
        ("50%", "exact", "exact does not solve 50%"),
        ("block 2x2 50% balance both", "top-k", "leave the solver at auto"),
    ],
)
def test_a_solver_that_cannot_solve_the_pattern_is_refused_up_front(
    client, save, check_problem, pattern, solver, words
):
    data = save({"w": np.ones((8, 8), np.float32)})
    answer = client.post("/v1/masks", params={"pattern": pattern, "solver": solver}, content=data)
    assert check_problem(answer, 422, "solver_refused", words)["solver"] == solver
