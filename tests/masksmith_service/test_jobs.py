import json
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from support.leases import take

from masksmith.patterns import parse
from masksmith_service.jobs import results
from masksmith_state.blobs.names import result_name
from masksmith_state.blobs.references import BlobReferences
from masksmith_state.blobs.store import BlobStore
from masksmith_state.jobs.reports import ShardReport
from masksmith_wire import specification
from masksmith_wire.errors import TensorError
from masksmith_wire.masks import pack, read_infos, unpack

MASK = np.tile([True, True, False, False], (8, 2))
NAN = ShardReport(error=TensorError(code="invalid_scores", message="tensor 'b': NaN at [3, 1]", index=[3, 1]))


def report(key, **changes):
    return ShardReport(result=key, status="optimal", objective=3.0, upper_bound=3.0, total_score=4.0, kept=32,
                       entries=64, solve_s=0.5, solver="top-k", device="cpu").model_copy(update=changes)  # fmt: skip


@pytest.fixture
def work(records, settings):
    """Do a worker's part for one shard."""

    def work(job, shard, outcome=None, mask=MASK):
        key = f"{shard:064x}"
        if outcome is None:
            store = BlobStore(settings.store_url)
            assert BlobReferences(records.redis, store).add_result_reference(job, key)
            store.put(result_name(key), pack(mask).tobytes())
        lease = take(records, job, shard, lease_s=60, attempts=3)
        assert records.complete(lease, outcome or report(key))

    return work


@pytest.fixture
def two(client, save):
    """A job of two tensors."""
    data = save({"a": np.ones((8, 8), np.float32), "b": np.ones((8, 8), np.float32)})
    return client.post("/v1/masks", params={"pattern": " 2:4 "}, content=data).json()["id"]


def get(client, job):
    return client.get(f"/v1/jobs/{job}").json()


def followed(client, job, **headers):
    response = client.get(f"/v1/jobs/{job}/events", headers=headers)
    assert response.headers["content-type"].startswith("text/event-stream")
    found = []
    for text in response.text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in text.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["id"], lines["event"], json.loads(lines["data"])))
    return found


def test_an_accepted_job(client, submit):
    job = submit()
    assert (job["state"], job["kind"], job["pattern"], job["solver"]) == ("queued", "masks", "2:4", "auto")
    assert job["progress"] == {"done": 0, "total": 1}
    assert [(tensor["name"], tensor["state"], tensor["shape"]) for tensor in job["tensors"]] == [
        ("layer.weight", "queued", [8, 8])
    ]
    assert [skip["name"] for skip in job["skipped"]] == ["layer.bias"]
    assert job["skipped"][0]["reason"] == "a bias"
    assert get(client, job["id"]) == job


def test_location_leads_to_the_job(client, good):
    response = client.post("/v1/masks", params={"pattern": "2:4"}, content=good)
    assert client.get(response.headers["location"]).json()["id"] == response.json()["id"]


def test_a_job_from_documents(client, put, save):
    one, other = put(save({"x": np.ones((8, 8))})), put(save({"y": np.ones((4, 8)), "z": np.ones(3)}))
    inputs = [{"name": "first", "digest": one, "key": "x"}, {"name": "second", "digest": other, "key": "y"}]
    response = client.post("/v1/jobs", json={"pattern": "transposable <=2:4", "tensors": inputs, "solver": "greedy"})
    assert response.status_code == 202
    job = response.json()
    assert [(tensor["name"], tensor["shape"]) for tensor in job["tensors"]] == [("first", [8, 8]), ("second", [4, 8])]
    assert (job["pattern"], job["solver"], job["progress"]["total"]) == ("transposable <=2:4", "greedy", 2)


def test_the_message_of_a_job_says_only_that_there_is_work(client, submit, records):
    job = submit()
    (message,) = [json.loads(text) for text in records.redis.lrange("masksmith.cpu", 0, -1)]
    assert message["headers"]["task"] == "masksmith.solve_shard"
    assert message["headers"]["argsrepr"] == "()"
    assert job["id"] not in json.dumps(message)


def test_progress_and_reports(client, two, work):
    work(two, 0)
    job = get(client, two)
    assert (job["state"], job["progress"]) == ("running", {"done": 1, "total": 2})
    assert [tensor["state"] for tensor in job["tensors"]] == ["succeeded", "queued"]
    work(two, 1)
    job = get(client, two)
    assert (job["state"], job["progress"]["done"]) == ("succeeded", 2)
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]
    told = job["tensors"][0]
    assert told.pop("storage_bytes") == {
        "dense": 256, "bitmask": 136, "csr": 292, "coo": 384, "bsr": None, "two_four": None
    }  # fmt: skip
    assert told == {
        "name": "a", "state": "succeeded", "shape": [8, 8], "pattern": None, "status": "optimal", "objective": 3.0,
        "upper_bound": 3.0, "gap": 0.0, "retained": 0.75, "total_score": 4.0, "density": 0.5, "solve_s": 0.5,
        "solver": "top-k", "device": "cpu",
        "layout": {"axes": "out in", "out_parts": [], "rule": "shape"},
        "update": None, "fill": 1.0, "diversity": None, "change": None, "spectrum": None, "error": None,
    }  # fmt: skip


def test_numbers_beyond_json_do_not_break_a_job(client, two, work):
    work(two, 0, report("0" * 64, objective=float("inf"), upper_bound=float("inf"), total_score=float("nan")))
    assert get(client, two)["tensors"][0]["state"] == "succeeded"


def test_shards_of_one_tensor_are_added_up(app, client, settings, save, work, records):
    app.state.masksmith.settings.shard_bytes = 4 * 8 * 4
    job = client.post("/v1/masks", params={"pattern": "2:4"}, content=save({"w": np.ones((8, 8), np.float32)})).json()
    assert job["progress"]["total"] == 2
    mask = np.random.default_rng(0).random((8, 8)) < 0.5
    work(job["id"], 0, mask=mask[:4])
    assert get(client, job["id"])["tensors"][0]["state"] == "running"
    work(job["id"], 1, report(f"{1:064x}", status="feasible", upper_bound=5.0, device="cuda:0"))
    BlobStore(settings.store_url).put(result_name(f"{1:064x}"), pack(mask[4:]).tobytes())
    (tensor,) = get(client, job["id"])["tensors"]
    assert (tensor["status"], tensor["objective"], tensor["upper_bound"]) == ("feasible", 6.0, 8.0)
    assert (tensor["gap"], tensor["solve_s"], tensor["device"]) == (0.25, 1.0, "cpu, cuda:0")
    data = client.get(f"/v1/jobs/{job['id']}/masks").content
    assert (unpack(safetensors.numpy.load(data)["w"], (8, 8)) == mask).all()


def test_masks_are_a_safetensors_file(client, two, work):
    work(two, 0)
    work(two, 1, mask=~MASK)
    response = client.get(f"/v1/jobs/{two}/masks")
    assert int(response.headers["content-length"]) == len(response.content)
    assert f"masks-{two}.safetensors" in response.headers["content-disposition"]
    found = safetensors.numpy.load(response.content)
    assert (unpack(found["a"], (8, 8)) == MASK).all()
    assert (unpack(found["b"], (8, 8)) == ~MASK).all()
    length = int.from_bytes(response.content[:8], "little")
    infos = read_infos(json.loads(response.content[8 : 8 + length])["__metadata__"])
    assert infos["a"].members() == {"shape": [8, 8], "pattern": "2:4", "ragged": "pad", "axis": "in"}
    response = client.get(f"/v1/jobs/{two}/masks", params={"format": "bool"})
    assert int(response.headers["content-length"]) == len(response.content)
    assert (safetensors.numpy.load(response.content)["b"] == ~MASK).all()


def test_masks_of_an_unfinished_job(client, two, check_problem):
    response = client.get(f"/v1/jobs/{two}/masks")
    assert response.headers["retry-after"] == "1"
    assert check_problem(response, 409, "job_not_finished", two, "queued")["state"] == "queued"


def test_a_mask_format_that_does_not_exist(client, two, check_problem):
    check_problem(client.get(f"/v1/jobs/{two}/masks?format=tar"), 422, "invalid_document", "query.format", "tar")


def test_the_good_masks_of_a_failed_job(client, two, work):
    work(two, 0)
    work(two, 1, NAN)
    job = get(client, two)
    assert job["state"] == "failed"
    assert [tensor["state"] for tensor in job["tensors"]] == ["succeeded", "failed"]
    assert job["tensors"][1]["error"] == {
        "code": "invalid_scores", "message": "tensor 'b': NaN at [3, 1]", "index": [3, 1],
    }  # fmt: skip
    response = client.get(f"/v1/jobs/{two}/masks")
    assert response.status_code == 200
    assert list(safetensors.numpy.load(response.content)) == ["a"]


def test_a_job_without_any_mask(client, two, work, check_problem):
    work(two, 0, NAN)
    work(two, 1, NAN)
    check_problem(client.get(f"/v1/jobs/{two}/masks"), 404, "result_not_found", two, "failed")


def test_masks_that_are_missing(client, two, work, check_problem, settings):
    work(two, 0)
    work(two, 1)
    BlobStore(settings.store_url).delete(result_name(f"{1:064x}"))
    response = client.get(f"/v1/jobs/{two}/masks")
    BlobStore(settings.store_url).delete(result_name(f"{0:064x}"))
    check_problem(response, 409, "result_damaged", "missing", "submit the job again")


def test_cancel_is_idempotent_and_keeps_finished_masks(client, two, work):
    work(two, 0)
    first = client.post(f"/v1/jobs/{two}/cancel")
    assert (first.status_code, first.json()["state"]) == (200, "canceled")
    assert [tensor["state"] for tensor in first.json()["tensors"]] == ["succeeded", "canceled"]
    assert client.post(f"/v1/jobs/{two}/cancel").json() == first.json()
    assert list(safetensors.numpy.load(client.get(f"/v1/jobs/{two}/masks").content)) == ["a"]


def test_canceling_a_finished_job_changes_nothing(client, two, work):
    work(two, 0)
    work(two, 1)
    before = get(client, two)
    response = client.post(f"/v1/jobs/{two}/cancel")
    assert (response.status_code, response.json()) == (200, before)


@pytest.mark.parametrize("live", [True, False])
def test_delete(client, two, work, check_problem, live):
    if not live:
        work(two, 0, NAN)
        work(two, 1, NAN)
    response = client.delete(f"/v1/jobs/{two}")
    assert (response.status_code, response.content) == (204, b"")
    assert all(job["id"] != two for job in client.get("/v1/jobs").json()["jobs"])
    check_problem(client.get(f"/v1/jobs/{two}"), 404, "job_not_found", two)
    check_problem(client.delete(f"/v1/jobs/{two}"), 404, "job_not_found", two)


def test_events_from_the_beginning_and_from_anywhere(client, two, work):
    work(two, 0)
    work(two, 1)
    found = followed(client, two)
    assert [(kind, data) for _, kind, data in found] == [
        ("state", {"state": "queued"}),
        ("state", {"state": "running"}),
        ("progress", {"done": 1, "total": 2}),
        ("progress", {"done": 2, "total": 2}),
        ("state", {"state": "succeeded"}),
    ]
    for number in range(4):
        assert followed(client, two, **{"Last-Event-ID": found[number][0]}) == found[number + 1 :]


def test_a_stream_resumed_after_the_last_event_ends(client, two, work):
    work(two, 0)
    client.post(f"/v1/jobs/{two}/cancel")
    last = followed(client, two)[-1]
    assert last[1:] == ("state", {"state": "canceled"})
    assert followed(client, two, **{"Last-Event-ID": last[0]}) == []


def test_event_streams_end_when_the_service_stops(app, client, two):
    app.state.masksmith.stop_event.set()
    assert followed(client, two) == []
    response = client.post("/v1/masks?pattern=2:4", content=b"", headers={"Prefer": "wait=50"})
    assert response.status_code == 400


@pytest.mark.parametrize("last", ["abc", "1", "-1", "0-0\u00e9", "1" * 50 + "-0"])
def test_an_invalid_event_id_is_rejected(client, two, check_problem, last):
    response = client.get(f"/v1/jobs/{two}/events", headers={"Last-Event-ID": last.encode("latin-1")})
    check_problem(response, 422, "invalid_document", "header.Last-Event-ID")


def test_the_same_idempotency_key_gives_the_same_job(client, submit, good, save, check_problem, records):
    job = submit(**{"Idempotency-Key": "k"})
    assert submit(**{"Idempotency-Key": "k"})["id"] == job["id"]
    assert records.redis.llen("masksmith.cpu") == 1
    other = client.post("/v1/masks", params={"pattern": "1:4"}, content=good, headers={"Idempotency-Key": "k"})
    check_problem(other, 409, "idempotency_conflict", "'k'")
    again = client.post("/v1/masks", params={"pattern": "2:4"}, content=save({"x": np.ones((4, 4))}),
                        headers={"Idempotency-Key": "k"})  # fmt: skip
    check_problem(again, 409, "idempotency_conflict", "'k'")
    long = client.post("/v1/masks", params={"pattern": "2:4"}, content=good, headers={"Idempotency-Key": "k" * 201})
    check_problem(long, 422, "invalid_document", "Idempotency-Key")


def test_prefer_wait_gives_up_in_time(client, good):
    begun = time.monotonic()
    response = client.post("/v1/masks?pattern=2:4", content=good, headers={"Prefer": "respond-async, wait=1"})
    assert 0.9 <= time.monotonic() - begun < 45, "it waited for longer than it was to"
    assert (response.status_code, response.json()["state"]) == (202, "queued")
    assert response.headers["preference-applied"] == "wait=1"


def test_prefer_wait_is_answered_when_the_job_ends(client, submit, good, records):
    job = submit(**{"Idempotency-Key": "k"})
    records.cancel(job["id"])
    response = client.post("/v1/masks?pattern=2:4", content=good, headers={"Prefer": "wait=50", "Idempotency-Key": "k"})
    assert (response.status_code, response.json()["state"]) == (200, "canceled")


@pytest.mark.parametrize("prefer", ["wait", "wait=", "wait=-1", "wait=1e9", "wait=soon", "return=minimal"])
def test_other_preferences_are_ignored(client, good, prefer):
    response = client.post("/v1/masks?pattern=2:4", content=good, headers={"Prefer": prefer})
    assert response.status_code == 202
    assert "preference-applied" not in response.headers


def test_too_many_live_jobs(app, client, submit, good):
    app.state.masksmith.settings.max_live_jobs = 2
    first = submit()
    submit()
    response = client.post("/v1/masks", params={"pattern": "2:4"}, content=good)
    assert (response.status_code, response.json()["code"], response.headers["retry-after"]) == (
        503, "too_many_jobs", "10",
    )  # fmt: skip
    client.post(f"/v1/jobs/{first['id']}/cancel")
    submit()


def test_pages(client, submit):
    made = [submit()["id"] for _ in range(5)][::-1]
    first = client.get("/v1/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in first["jobs"]] == made[:2]
    second = client.get("/v1/jobs", params={"limit": 2, "after": first["next"]}).json()
    third = client.get("/v1/jobs", params={"limit": 2, "after": second["next"]}).json()
    assert [job["id"] for job in second["jobs"] + third["jobs"]] == made[2:]
    assert third["next"] is None
    assert first["jobs"][0]["progress"] == {"done": 0, "total": 1}


def test_a_large_bool_download_is_streamed_part_by_part(client, two, work, settings, monkeypatch):
    work(two, 0)
    work(two, 1)
    unpacked = []
    monkeypatch.setattr(results.masks, "unpack", lambda packed, shape: unpacked.append(shape) or unpack(packed, shape))
    client.get(f"/v1/jobs/{two}/masks?format=bool")
    assert unpacked == [(8, 8), (8, 8)]


def test_deleting_a_job_deletes_its_results_unless_another_has_them(client, two, work, save, on_disk, records):
    data = save({"a": np.ones((8, 8), np.float32), "b": np.ones((8, 8), np.float32)})
    other = client.post("/v1/masks", params={"pattern": "2:4"}, content=data).json()["id"]
    for job in (two, other):
        for shard in (0, 1):
            work(job, shard)

    def masks():
        return [name for name in on_disk.files() if name.startswith("masks/")]

    assert len(masks()) == 2
    assert client.delete(f"/v1/jobs/{two}").status_code == 204
    assert len(masks()) == 2
    assert client.get(f"/v1/jobs/{other}/masks").status_code == 200
    assert client.delete(f"/v1/jobs/{other}").status_code == 204
    assert masks() == []


def test_a_request_parses_its_pattern_once(client, good, put, monkeypatch):
    parsed = []

    def counted(text, **options):
        parsed.append(text)
        return parse(text, **options)

    monkeypatch.setattr(specification, "parse", counted)
    assert client.post("/v1/masks", params={"pattern": "2:4", "budget": "50%"}, content=good).status_code == 202
    tensors = [{"name": "w", "digest": put(good), "key": "layer.weight"}]
    assert client.post("/v1/jobs", json={"pattern": "1:4", "tensors": tensors}).status_code == 202
    assert parsed == ["2:4", "1:4"]


@pytest.mark.parametrize("format", ["bits", "bool"])
def test_damaged_masks_are_not_served(client, two, work, check_problem, settings, format):
    work(two, 0)
    work(two, 1)
    path = Path(settings.store_url) / result_name(f"{1:064x}")
    data = bytearray(path.read_bytes())
    data[3] ^= 0x55
    path.write_bytes(data)
    for path in (f"masks?format={format}", "masks", "window?tensor=b"):
        check_problem(client.get(f"/v1/jobs/{two}/{path}"), 409, "result_damaged", "submit the job again")
    assert 'masksmith_damaged_blobs{kind="masks"} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize("cut", [0, 3])
def test_a_cut_mask_is_an_error_of_a_window(client, two, work, check_problem, settings, cut):
    work(two, 0)
    work(two, 1)
    path = Path(settings.store_url) / result_name(f"{0:064x}")
    path.write_bytes(path.read_bytes()[:cut])
    name = client.get(f"/v1/jobs/{two}").json()["tensors"][0]["name"]
    response = client.get(f"/v1/jobs/{two}/window", params={"tensor": name, "row": 0, "col": 0, "rows": 8, "cols": 8})
    check_problem(response, 409, "result_damaged")


def test_a_panic_of_a_native_library_is_an_error_like_others(client, monkeypatch, check_problem, two):
    class PanicException(BaseException):
        pass

    def panic(*_):
        raise PanicException("range end is out of bounds")

    monkeypatch.setattr("masksmith_state.jobs.records.JobRecords.summaries", panic)
    check_problem(client.get("/v1/jobs"), 500, "internal")
    monkeypatch.setattr("obstore.head", panic)
    assert client.get("/readyz").json()["code"] == "store_unavailable"
    monkeypatch.undo()
