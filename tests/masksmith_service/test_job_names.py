"""Names, labels, filters of lists, and shortened ids."""

from datetime import UTC, datetime, timedelta

import pytest

from masksmith_service.jobs import listing
from masksmith_state.jobs.redis_keys import job_key
from masksmith_state.keys import Keys, Role
from masksmith_wire.names import MAX_LABELS


@pytest.fixture
def start(client, good):
    """Start a job on a file; gives its document."""

    def start(**query):
        response = client.post("/v1/masks", params={"pattern": "2:4"} | query, content=good)
        assert response.status_code == 202, response.text
        return response.json()

    return start


def listed(client, **query):
    response = client.get("/v1/jobs", params=query)
    assert response.status_code == 200, response.text
    return [job["id"] for job in response.json()["jobs"]]


@pytest.mark.parametrize("query", [{"limit": 2}, {"limit": 2, "kind": "masks"}, {"limit": 2, "state": "queued"}])
@pytest.mark.parametrize("fault", ["missing", "of another type", "not UTF-8"])
def test_records_that_cannot_be_read_do_not_end_a_list(client, submit, records, monkeypatch, query, fault):
    monkeypatch.setattr(listing, "BATCH", 2)
    ids = [submit()["id"] for _ in range(6)][::-1]
    for bad in ids[1], ids[2], ids[3]:
        if fault == "not UTF-8":
            records.redis.hset(job_key(bad), "state", b"\xff")
            continue
        records.redis.delete(job_key(bad))
        if fault == "of another type":
            records.redis.lpush(job_key(bad), "x")
    first = client.get("/v1/jobs", params=query).json()
    assert [job["id"] for job in first["jobs"]] == [ids[0], ids[4]]
    assert listed(client, **query, after=first["next"]) == [ids[5]]


def document(put, good, **members):
    tensors = [{"name": "a", "digest": put(good), "key": "layer.weight"}]
    return {"pattern": "2:4", "tensors": tensors} | members


def test_a_job_has_name_labels_and_kind(client, start, put, good):
    job = start(name=" llama ", label=["team=vision", "run=3"])
    described = {"name": "llama", "labels": {"team": "vision", "run": "3"}, "kind": "masks"}
    other = client.post("/v1/jobs", json=document(put, good, name="mine", labels={"a": ""})).json()
    assert job | described == job
    assert (other["name"], other["labels"]) == ("mine", {"a": ""})
    first, second = client.get("/v1/jobs").json()["jobs"]
    assert second | described == second
    assert (first["name"], first["labels"]) == ("mine", {"a": ""})


def test_default_names(client, start, put, good):
    assert start()["name"] == "layer.weight, 2:4"
    assert client.post("/v1/jobs", json=document(put, good)).json()["name"] == "a, 2:4"
    benchmark = {"kind": "benchmark", "model": "MiniLM", "patterns": ["2:4"]}
    assert client.post("/v1/jobs", json=benchmark).json()["name"] == "MiniLM, 2:4"
    assert client.post("/v1/jobs", json=benchmark | {"name": "mine"}).json()["name"] == "mine"


@pytest.mark.parametrize(
    "query",
    [
        {"name": ""}, {"name": "a\nb"}, {"name": "\x1b[2J"}, {"name": "a" * 201}, {"label": "team"}, {"label": "=a"},
        {"label": ["a=1", "a=2"]}, {"label": "a=\x07"}, {"label": "a b=c"}, {"label": "a=" + "b" * 101},
        {"label": [f"k{n}=" for n in range(MAX_LABELS + 1)]},
    ],
)  # fmt: skip
def test_refused_in_a_query(client, good, check_problem, query):
    response = client.post("/v1/masks", params={"pattern": "2:4"} | query, content=good)
    check_problem(response, 422, "invalid_document", next(iter(query)))


@pytest.mark.parametrize(
    "members", [{"name": "a\u202eb"}, {"labels": {"a b": ""}}, {"labels": {f"k{n}": "" for n in range(MAX_LABELS + 1)}}]
)
def test_refused_in_a_document(client, put, good, check_problem, members):
    response = client.post("/v1/jobs", json=document(put, good, **members))
    check_problem(response, 422, "invalid_document", next(iter(members)))


def test_a_request_with_another_name_is_another_request(client, put, good, check_problem):
    headers = {"Idempotency-Key": "k"}
    named = document(put, good, name="mine")
    job = client.post("/v1/jobs", json=named, headers=headers).json()["id"]
    assert client.post("/v1/jobs", json=named, headers=headers).json()["id"] == job
    for other in (document(put, good), named | {"labels": {"a": "b"}}):
        check_problem(client.post("/v1/jobs", json=other, headers=headers), 409, "idempotency_conflict")


def test_lists_are_filtered(client, start):
    llama = start(name="Llama, 2:4", label=["team=vision", "run=3"])["id"]
    bert = start(name="BERT, 2:4", label="team=text")["id"]
    benchmark = client.post("/v1/jobs", json={"kind": "benchmark", "model": "MiniLM", "patterns": ["2:4"]}).json()["id"]
    client.post(f"/v1/jobs/{bert}/cancel")
    assert listed(client) == [benchmark, bert, llama]
    assert listed(client, name="LLAMA") == [llama]
    assert listed(client, name="2:4") == [benchmark, bert, llama]
    assert listed(client, kind="benchmark") == [benchmark]
    assert listed(client, state="canceled") == [bert]
    assert listed(client, state=["canceled", "queued"], kind="masks") == [bert, llama]
    assert listed(client, label="team=vision") == [llama]
    assert listed(client, label="team") == [bert, llama]
    assert listed(client, label=["team", "run=3"]) == [llama]
    assert listed(client, label=["team=text", "run=3"]) == []
    assert listed(client, label=["team=vision", "team"]) == listed(client, label=["team", "team=vision"]) == [llama]
    for bad in (["team=vision", "team=text"], ["team=", "team=text"], "=vision"):
        assert client.get("/v1/jobs", params={"label": bad}).status_code == 422, bad


@pytest.mark.parametrize("label", ["", "=", "=vision"])
def test_a_filter_by_a_label_without_a_key_is_refused(client, check_problem, label):
    check_problem(client.get("/v1/jobs", params={"label": label}), 422, "invalid_document", "KEY=VALUE")


def test_lists_of_a_time(client, start):
    jobs = [start() for _ in range(3)]
    ids, times = [job["id"] for job in jobs], [job["created_at"] for job in jobs]
    assert listed(client, since=times[1]) == [ids[2], ids[1]]
    assert listed(client, until=times[1]) == [ids[1], ids[0]]
    assert listed(client, since=times[1], until=times[1], name="layer") == [ids[1]]
    assert listed(client, since=(datetime.now(UTC) + timedelta(hours=1)).isoformat()) == []


def test_lists_of_a_key(client, start, records, check_problem):
    keys = Keys(records.redis)
    admin, ann, bob = (
        keys.create(name, role) for name, role in (("root", Role.ADMIN), ("ann", Role.USER), ("bob", Role.USER))
    )
    jobs = {}
    for info, token in (ann, bob):
        client.headers["Authorization"] = f"Bearer {token}"
        jobs[info.name] = start()["id"]
    assert listed(client, key="bob") == listed(client, key=bob[0].id) == listed(client) == [jobs["bob"]]
    refused = client.get("/v1/jobs", params={"key": "ann"})
    client.headers["Authorization"] = f"Bearer {admin[1]}"
    assert listed(client) == [jobs["bob"], jobs["ann"]]
    assert [job["key"] for job in client.get("/v1/jobs").json()["jobs"]] == [bob[0].id, ann[0].id]
    assert listed(client, key="ann") == listed(client, key=ann[0].id) == [jobs["ann"]]
    assert listed(client, key="root") == listed(client, key=admin[0].id) == []
    page = client.get("/jobs", params={"key": "ann"}, headers={"Accept": "text/html"}).text
    assert (jobs["ann"] in page, jobs["bob"] in page) == (True, False)
    check_problem(refused, 403, "forbidden", "admin's key")
    check_problem(client.get("/v1/jobs", params={"key": "eve"}), 404, "key_not_found", "eve")
    twin = keys.create("ann")[0].id
    check_problem(client.get("/v1/jobs", params={"key": "ann"}), 404, "key_not_found", twin)
    twin = keys.create("root")[0].id
    check_problem(client.get("/v1/jobs", params={"key": "root"}), 404, "key_not_found", twin)


@pytest.mark.parametrize(
    "query",
    [
        {"kind": "cakes"},
        {"state": "lost"},
        {"since": "yesterday"},
        {"since": "0.0"},
        {"until": "-8"},
        {"until": "2026-01-01T00:00"},
        {"stat": "x"},
    ],
)
def test_a_bad_filter_is_refused(client, check_problem, query):
    check_problem(client.get("/v1/jobs", params=query), 422, "invalid_document", next(iter(query)))


def test_filtered_pages_follow_each_other(client, start):
    odd = [start(name=f"job {n}", label=f"odd={n % 2}")["id"] for n in range(7)][1::2]
    page = client.get("/v1/jobs", params={"label": "odd=1", "limit": 2}).json()
    rest = client.get("/v1/jobs", params={"label": "odd=1", "limit": 2, "after": page["next"]}).json()
    assert [job["id"] for job in page["jobs"] + rest["jobs"]] == odd[::-1]
    assert rest["next"] is None


def test_shortened_ids(client, start, records):
    job = start()["id"]
    short = job[:20]
    assert client.get(f"/v1/jobs/{short}").json()["id"] == job
    assert client.post(f"/v1/jobs/{short}/cancel").json()["id"] == job
    assert client.get(f"/v1/jobs/{short}/masks").json()["code"] == "result_not_found"
    assert client.get(f"/v1/jobs/{job[:4]}").json()["id"] == job
    for wrong in (job[:3], short[:-1] + "x", "f" * 20, job + "0", "*", job[:19] + "%20"):
        assert client.get(f"/v1/jobs/{wrong}").json()["code"] == "job_not_found"
    assert client.delete(f"/v1/jobs/{short}").status_code == 204
    assert records.read(job) is None


def test_an_id_that_is_too_short_says_so(client, start, check_problem):
    job = start()["id"]
    check_problem(client.get(f"/v1/jobs/{job[:3]}"), 404, "job_not_found", repr(job[:3]), "below 4 digits")


def test_an_ambiguous_id_is_refused(client, start, check_problem):
    ids = [start()["id"] for _ in range(7)]
    for method, path in [("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("DELETE", "")]:
        response = client.request(method, f"/v1/jobs/{ids[0][:4]}{path}")
        problem = check_problem(response, 409, "ambiguous_job", "more digits", *ids[:5], "...")
        assert problem["jobs"] == ids[:5]
    assert client.get(f"/v1/jobs/{ids[0]}").json()["state"] == "queued"


def test_a_full_id_is_read_at_once_and_jobs_of_others_count_for_nothing(client, good, records, monkeypatch):
    keys = Keys(records.redis)
    headers = [{"Authorization": f"Bearer {keys.create(name)[1]}"} for name in ("ann", "bob")]
    jobs = [client.post("/v1/masks?pattern=2:4", content=good, headers=each).json()["id"] for each in headers]
    assert jobs[0][:4] == jobs[1][:4]
    for job, each in zip(jobs, headers, strict=True):
        assert client.get(f"/v1/jobs/{job[:4]}", headers=each).json()["id"] == job
    assert client.get(f"/v1/jobs/{jobs[1][:26]}", headers=headers[0]).json()["code"] == "job_not_found"
    monkeypatch.setattr("masksmith_state.jobs.records.JobRecords.find_ids", None)
    assert client.get(f"/v1/jobs/{jobs[0]}", headers=headers[0]).json()["id"] == jobs[0]
    assert client.get(f"/v1/jobs/{jobs[1]}", headers=headers[0]).json()["code"] == "job_not_found"


def test_masks_of_a_shortened_id_are_compared_and_measured(client, start, put, good, check_problem):
    job = start()["id"]
    request = {"kind": "benchmark", "masks_of": job[:20]}
    check_problem(client.post("/v1/jobs", json=request), 409, "job_not_finished", job)
    full, short = (client.post("/v1/jobs", json=document(put, good, previous=each)) for each in (job, job[:20]))
    assert check_problem(short, 422, "invalid_previous")["detail"] == full.json()["detail"].replace(job, job[:20])
