"""Records that cannot be read answer 410, and records that are deleted while they are read 404; never 500."""

import json

import pytest
from support.leases import take

from masksmith_state.jobs.redis_keys import job_key, parts_key, reports_key
from masksmith_state.jobs.reports import ShardReport
from masksmith_state.jobs.sweeper import sweep
from masksmith_state.keys import Keys, Quotas, Role, redis_key_of
from masksmith_state.unreadable import entries

FIELDS = (
    "kind",
    "plan",
    "state",
    "owner",
    "labels",
    "uploads",
    "earlier_results",
    "created_at",
    "done",
    "total",
    "failures",
    "queue",
)
PATHS = ("", "/masks", "/weights", "/window?tensor=layer.weight", "/profile?tensor=layer.weight")
WRONG_TYPES = (job_key, parts_key, reports_key, lambda job: f"masksmith:job:{job}:pending")


def answers(client, job):
    paths = [*(f"/v1/jobs/{job}{path}" for path in PATHS), f"/jobs/{job}", f"/jobs/{job}/layer?tensor=layer.weight"]
    return {path: client.get(path).status_code for path in [*paths, "/v1/jobs", "/jobs", "/readyz", "/metrics"]}


def check(client, records, job, submit):
    found = answers(client, job)
    assert 500 not in found.values(), found
    other = submit()["id"]
    found = []
    sweep(records, lambda *shard: found.append(shard), 1.0)
    assert client.get(f"/v1/jobs/{other}").json()["state"] == "queued"
    assert client.delete(f"/v1/jobs/{job}").status_code in (204, 404, 410)
    assert records.delete(job) in (True, False)
    assert client.get(f"/v1/jobs/{job}").status_code == 404
    assert not records.redis.sismember("masksmith:live", job)
    return other


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", ["junk", '{"a":1}', None, b"\xff\xfe"], ids=["junk", "JSON", "missing", "no UTF-8"])
def test_a_job_with_a_wrong_field_stops_nothing(client, records, submit, field, value):
    job = submit()["id"]
    if value is None:
        records.redis.hdel(job_key(job), field)
    else:
        records.redis.hset(job_key(job), field, value)
    other = check(client, records, job, submit)
    assert records.delete(other)


@pytest.mark.parametrize(
    ("field", "value"),
    [("labels", "[" * 5000), ("created_at", "9999-12-31T23:59:59-14:00"), ("finished_at", "0001-01-01T00:00:00+14:00")],
)
def test_a_job_with_a_field_that_no_response_can_show_is_left_out_of_lists(client, records, submit, field, value):
    job, other = submit()["id"], submit()["id"]
    records.redis.hset(job_key(job), field, value)
    assert client.get(f"/v1/jobs/{job}").json()["code"] == "record_unreadable"
    assert [each["id"] for each in client.get("/v1/jobs").json()["jobs"]] == [other]
    check(client, records, job, submit)


def test_a_report_with_a_duration_that_is_no_number_makes_the_record_unreadable(client, records, submit):
    job = submit()["id"]
    finish(records, job)
    report = json.loads(records.redis.hget(reports_key(job), "0")) | {"status": "optimal", "entries": 64}
    records.redis.hset(reports_key(job), "0", json.dumps(report | {"solve_s": 1.5}))
    assert client.get(f"/v1/jobs/{job}").json()["tensors"][0]["solve_s"] == 1.5
    records.redis.hset(reports_key(job), "0", json.dumps(report | {"solve_s": float("nan")}))
    assert client.get(f"/v1/jobs/{job}").json()["code"] == "record_unreadable"
    check(client, records, job, submit)


@pytest.mark.parametrize("key", WRONG_TYPES)
def test_a_job_with_a_key_of_another_type_stops_nothing(client, records, submit, key):
    job = submit()["id"]
    records.redis.delete(key(job))
    records.redis.lpush(key(job), "x")
    if key is not WRONG_TYPES[-1]:  # which this request does not read
        assert client.get(f"/v1/jobs/{job}").json()["code"] == "record_unreadable"
    check(client, records, job, submit)


@pytest.mark.parametrize("key", [parts_key, reports_key])
@pytest.mark.parametrize("index", ["0", "99", "x"])
@pytest.mark.parametrize("text", ["junk", '{"tensor":99,"first":0,"last":8}', "{}"])
def test_a_job_with_a_wrong_part_stops_nothing(client, records, submit, key, index, text):
    job = submit()["id"]
    records.redis.hset(key(job), index, text)
    records.redis.hset(job_key(job), mapping={"state": "succeeded", "finished_at": 1.0})
    check(client, records, job, submit)


def test_the_answer_says_what_to_do(client, records, submit):
    job = submit()["id"]
    records.redis.hset(job_key(job), "plan", "junk")
    response = client.get(f"/v1/jobs/{job}")
    assert (response.status_code, response.json()["code"]) == (410, "record_unreadable")
    assert "submit it again" in response.json()["detail"]


def test_a_record_that_stops_the_sweep_is_set_aside_with_its_reason(client, records, submit):
    job = submit()["id"]
    records.redis.set(f"masksmith:job:{job}:taken", "x")
    sweep(records, lambda *shard: None, 1.0)
    (entry,) = entries(records.redis)
    assert (entry["kind"], entry["name"]) == ("job", job)
    assert "WRONGTYPE" in entry["reason"]
    kept = records.redis.hgetall(f"masksmith:aside:{job_key(job)}")
    assert kept["state"] == "queued"
    assert 0 < records.redis.ttl(f"masksmith:aside:{job_key(job)}") <= 30 * 86_400
    left = [key for key in records.redis.keys(f"*{job}*") if not key.startswith("masksmith:aside:")]
    assert left == []
    assert job not in records.redis.zrange("masksmith:jobs", 0, -1)
    assert records.redis.scard("masksmith:owner::live") == 0
    assert 'masksmith_unreadable_total{kind="job"} 1.0' in client.get("/metrics").text


def test_a_worker_that_cannot_be_read_is_set_aside(client, records):
    records.redis.set("masksmith:workers:bad", json.dumps({"name": 7}))
    records.redis.sadd("masksmith:workers", "bad")
    assert client.get("/v1/workers").json() == []
    assert client.get("/readyz").status_code == 503
    (entry,) = entries(records.redis)
    assert (entry["kind"], entry["name"], json.loads(entry["text"])) == ("worker", "bad", {"name": 7})


def finish(records, job):
    """End a job as a worker would, with a result of which no file exists."""
    lease = take(records, job, 0, lease_s=30, attempts=1)
    report = ShardReport(result="0" * 64, kept=8, total=64, objective=1.0, upper_bound=1.0, mask_digest="0" * 64)
    assert records.complete(lease, report)


@pytest.mark.parametrize("path", ["/masks", "/masks?format=bool", "/weights", *PATHS[3:]])
def test_a_job_that_is_deleted_while_it_is_read_is_not_found(client, records, submit, monkeypatch, path):
    job = submit()["id"]
    finish(records, job)
    plain = type(records).shards

    def delete_first(self, job):
        self.delete(job)
        return plain(self, job)

    monkeypatch.setattr(type(records), "shards", delete_first)
    assert client.get(f"/v1/jobs/{job}{path}").status_code == 404


def test_a_result_that_is_deleted_after_its_size_was_read_is_not_found(client, app, records, submit, monkeypatch):
    job = submit()["id"]
    finish(records, job)
    store = app.state.masksmith.store
    monkeypatch.setattr(store, "size", lambda name: 8)
    response = client.get(f"/v1/jobs/{job}/masks")
    assert (response.status_code, response.json()["code"]) == (404, "result_not_found")


def test_an_upload_that_is_deleted_while_it_is_checked_is_not_found(client, app, good, put, monkeypatch):
    digest = put(good)
    store = app.state.masksmith.store
    sizes = iter([7, 7, None, None])
    monkeypatch.setattr(store, "size", lambda name: next(sizes, None))
    monkeypatch.setattr(store.objects, "size", lambda name: None)
    assert client.head(f"/v1/tensors/{digest}").status_code == 404


def make_wrong_type(redis, key):
    redis.delete(key)
    redis.lpush(key, "x")


def make_wrong_bytes(redis, key):
    for field in redis.hkeys(key):
        redis.hset(key, field, b"\xfe{")


@pytest.mark.parametrize("spoil", [make_wrong_type, make_wrong_bytes])
def test_a_key_with_a_wrong_record_is_not_valid_and_stops_no_other(client, records, spoil):
    keys = Keys(records.redis)
    bad, token = keys.create("bad")
    _, admin = keys.create("ops", Role.ADMIN)
    spoil(records.redis, redis_key_of(bad.id))
    assert client.get("/v1/jobs", headers={"Authorization": f"Bearer {token}"}).status_code == 401
    for path in ("/v1/keys", "/jobs", "/v1/workers", "/metrics"):
        assert client.get(path, headers={"Authorization": f"Bearer {admin}"}).status_code == 200
    assert [key["name"] for key in client.get("/v1/keys", headers={"Authorization": f"Bearer {admin}"}).json()] == [
        "ops"
    ]


@pytest.mark.parametrize("spoil", [make_wrong_type, make_wrong_bytes])
def test_a_count_of_requests_or_of_jobs_that_is_wrong_refuses_nothing(client, records, submit, spoil):
    key, token = Keys(records.redis).create("ops", Role.ADMIN)
    headers = {"Authorization": f"Bearer {token}"}
    assert client.get("/v1/jobs", headers=headers).status_code == 200
    assert submit(**headers)["state"] == "queued"
    for name in (f"masksmith:rate:{key.id}", "masksmith:counts"):
        spoil(records.redis, name)
    assert client.get("/v1/jobs", headers=headers).status_code == 200
    assert submit(**headers)["state"] == "queued"
    assert client.get("/metrics", headers=headers).status_code == 200


@pytest.mark.parametrize("key", ["masksmith:workers:bad", "masksmith:served:masksmith.cpu"])
def test_bytes_that_are_no_text_are_read_as_a_wrong_text(client, records, submit, key):
    job = submit()["id"]
    records.redis.sadd("masksmith:workers", "bad", b"\xff")
    records.redis.set(key, b"\xff\xfe")
    found = answers(client, job)
    assert found[f"/v1/jobs/{job}"] == found["/v1/jobs"] == found["/jobs"] == found["/metrics"] == 200
    assert 500 not in found.values()


def test_events_that_cannot_be_read_end_the_stream(client, records, submit):
    job = submit()["id"]
    make_wrong_type(records.redis, f"masksmith:job:{job}:events")
    assert client.get(f"/v1/jobs/{job}/events").text == ""
    records.redis.hset(job_key(job), "state", "junk")
    assert client.get(f"/v1/jobs/{job}/events").text == ""


def test_a_damaged_number_of_bytes_is_named(client, records, good, caplog):
    info, token = Keys(records.redis).create("ann", quotas=Quotas(stored_bytes=10**6))
    number = f"masksmith:owner:{info.id}:bytes"
    records.redis.set(number, "junk")
    headers = {"Authorization": f"Bearer {token}"}
    response = client.post("/v1/tensors", content=good, headers=headers)
    assert (response.status_code, response.json()["code"]) == (503, "broker_unavailable")
    assert "is damaged, and the service's log names it" in response.json()["detail"]
    assert f"{number!r} is damaged: a string, expected a whole number" in caplog.text
    records.redis.delete(number)
    assert client.post("/v1/tensors", content=good, headers=headers).status_code == 201
