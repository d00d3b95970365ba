"""Every address of the OpenAPI document under each bound: a response that names it, and others are served."""

import json

import numpy as np
import pytest
import safetensors.numpy
from starlette.testclient import TestClient

from masksmith_service import resources
from masksmith_service.app import create_app
from masksmith_service.auth import sessions
from masksmith_service.bounds.table import cost, limit
from masksmith_service.jobs.access import MAX_PARTS_ON_LOOP
from masksmith_service.settings import Settings
from masksmith_state.jobs.redis_keys import job_key, parts_key
from masksmith_state.keys import Keys, Role

OPERATIONS = [
    (method.upper(), path) for path, methods in create_app(Settings()).openapi()["paths"].items() for method in methods
]
HOLDERS = {
    "memory": lambda capacities: capacities.memory,
    "streams": lambda capacities: capacities.streams,
    "creations": lambda capacities: capacities.creations,
    "lists": lambda capacities: capacities.lists,
}
LOGIN = ("POST", "/v1/session")
OPEN = {("GET", "/healthz"), ("GET", "/readyz"), LOGIN, ("DELETE", "/v1/session")}


@pytest.fixture
def site(valkey, records, tmp_path, monkeypatch, good):
    """The application with keys for ann, bob and an admin, and an ended job of ann's without results."""
    monkeypatch.setattr(resources, "CAPACITY_WAIT_S", 0.0)
    settings = Settings(redis_url=valkey.url, store_url=str(tmp_path / "store"), auth="required")
    tokens = {name: Keys(records.redis).create(name, role)[1]
              for name, role in (("ann", Role.ADMIN), ("bob", Role.ADMIN))}  # fmt: skip
    app = create_app(settings)
    with TestClient(app, raise_server_exceptions=False) as client:
        headers = {name: {"Authorization": f"Bearer {token}"} for name, token in tokens.items()}
        job = client.post("/v1/masks?pattern=2:4", content=good, headers=headers["ann"]).json()["id"]
        records.cancel(job)
        yield client, headers, job, app.state.masksmith.capacities


def key_of(capacities, client, headers, who):
    return client.get("/v1/session", headers=headers[who]).json()["key"]


def call(client, method, path, job, headers, **more):
    address = path.replace("{job}", job).replace("{digest}", "0" * 64).replace("{key}", "0" * 10)
    query = {"tensor": "layer.weight"} if path.endswith(("window", "profile", "layer")) else {}
    if path == "/v1/masks" and method == "POST":
        query = {"pattern": "2:4"}
    body = {"content": safetensors.numpy.save({})} if method in ("PUT", "POST") else {}
    return client.request(method, address, params=query, headers=headers, follow_redirects=False, **(body | more))


def check(response, bound):
    """A response as without the bound, or one that names it."""
    assert response.status_code != 500, response.text
    is_head = response.request.method == "HEAD"
    if response.status_code in (429, 503) and not is_head and response.json()["code"] == "overloaded":
        assert int(response.headers["Retry-After"]) > 0
        assert response.json()["bound"] == bound
        return True
    return False


@pytest.mark.parametrize("name", HOLDERS)
def test_one_key_cannot_hold_the_capacity_of_others(site, name):
    client, headers, job, capacities = site
    capacity, key = HOLDERS[name](capacities), key_of(capacities, client, headers, "ann")
    capacity.held_by_key[key] = capacity.share_of(key)
    refused = {
        operation for operation in OPERATIONS if check(call(client, *operation, job, headers["ann"]), capacity.bound)
    }
    assert refused, "nothing is counted"
    assert not refused & OPEN
    for operation in OPERATIONS:
        assert not check(call(client, *operation, job, headers["bob"]), capacity.bound), operation
        assert client.get("/healthz").status_code == 200
    del capacity.held_by_key[key]
    assert capacity.held_by_key.total() == 0


@pytest.mark.parametrize("name", HOLDERS)
def test_healthz_answers_when_all_capacity_is_held(site, name):
    client, headers, job, capacities = site
    capacity = HOLDERS[name](capacities)
    capacity.held_by_key["others"] = capacity.total
    refused = {
        operation for operation in OPERATIONS if check(call(client, *operation, job, headers["ann"]), capacity.bound)
    }
    assert refused
    assert not refused & OPEN
    assert client.get("/healthz").status_code == 200
    del capacity.held_by_key["others"]
    assert not any(check(call(client, *operation, job, headers["ann"]), capacity.bound) for operation in OPERATIONS)
    assert capacity.held_by_key.total() == 0


def test_a_document_that_is_too_large_is_refused_everywhere(site):
    client, headers, job, _ = site
    for method, path in OPERATIONS:
        if method in ("GET", "HEAD") or path in ("/v1/masks", "/v1/tensors", "/v1/tensors/{digest}"):
            continue
        largest = limit("login_bytes") if path == "/v1/session" else Settings().max_document_bytes
        for length in (largest + 1, 2**62):
            sent = headers["ann"] | {"Content-Length": str(length)}
            response = call(client, method, path, job, sent, content=b"{}")
            assert (response.status_code, response.json()["code"]) == (413, "body_too_large"), (method, path)
            name = "login_bytes" if path == "/v1/session" else "max_document_bytes"
            assert f"larger than {name} = {largest}" in response.json()["detail"], (method, path)
            assert ("fewer tensors" in response.json()["detail"]) is (path == "/v1/jobs"), (method, path)
        response = call(client, method, path, job, headers["ann"], content=iter([b" " * (largest + 1)]))
        assert (response.status_code, response.json()["code"]) == (413, "body_too_large"), (method, path)
    assert client.get("/healthz").status_code == 200


def test_a_key_without_requests_left_is_refused_everywhere(site, records):
    client, headers, job, capacities = site
    key = key_of(capacities, client, headers, "ann")
    records.redis.hset(f"masksmith:rate:{key}", mapping={"left": -1e6, "at": records.now()})
    for operation in OPERATIONS:
        response = call(client, *operation, job, headers["ann"])
        if operation not in OPEN:
            assert response.status_code == 429, operation
            # A response to HEAD has no document.
            assert operation[0] == "HEAD" or response.json()["code"] == "rate_limited"
            assert int(response.headers["Retry-After"]) > 0
        assert client.get("/v1/session", headers=headers["bob"]).status_code == 200
    assert client.get("/healthz").status_code == 200


def test_a_full_broker_refuses_what_adds_and_serves_the_rest(site, records):
    client, headers, job, _ = site
    used = records.redis.info("memory")["used_memory"]
    records.redis.config_set("maxmemory", int(used * 1.05))
    client.app.state.masksmith.housekeeping.broker._read_at = float("-inf")
    try:
        body = safetensors.numpy.save({"w": np.ones((4, 4), "float32")})
        response = client.post("/v1/masks?pattern=2:4", content=body, headers=headers["ann"])
        assert (response.status_code, response.json()["code"]) == (503, "broker_full"), response.text
        assert int(response.headers["Retry-After"]) > 0
        for operation in OPERATIONS:
            response = call(client, *operation, job, headers["bob"])
            assert response.status_code != 500, response.text
            if operation[0] == "GET" and operation != ("GET", "/readyz"):
                assert response.status_code < 500, (operation, response.text)
        assert client.get("/readyz").status_code == 503
    finally:
        records.redis.config_set("maxmemory", 0)


def test_scripts_that_delete_run_when_the_broker_is_full(site, records):
    client, headers, _, _ = site
    body = safetensors.numpy.save({"w": np.ones((4, 4), "float32")})
    job = client.post("/v1/masks?pattern=2:4", content=body, headers=headers["ann"]).json()["id"]
    records.redis.config_set("maxmemory", 1)
    try:
        assert client.get("/v1/session", headers=headers["bob"]).status_code == 200
        assert client.delete(f"/v1/jobs/{job}", headers=headers["ann"]).status_code == 204
        assert client.get(f"/v1/jobs/{job}", headers=headers["ann"]).status_code == 404
    finally:
        records.redis.config_set("maxmemory", 0)


def test_an_upload_beyond_the_quota_of_records_is_refused_by_that_name(site, records, monkeypatch):
    client, headers, _, capacities = site
    key = key_of(capacities, client, headers, "ann")
    settings = client.app.state.masksmith.settings
    monkeypatch.setattr(settings, "key_broker_bytes", int(records.redis.get(f"masksmith:owner:{key}:record_bytes")))
    content = safetensors.numpy.save({"other": np.ones((2, 2), "float32")})
    response = client.post("/v1/tensors", content=content, headers=headers["ann"])
    assert (response.status_code, response.json()["code"]) == (429, "too_many_bytes")
    assert "key_broker_bytes" in response.json()["detail"]
    assert response.json()["limit"] == settings.key_broker_bytes


def test_a_key_has_a_quota_of_records(site, records, monkeypatch):
    client, headers, job, capacities = site
    key = key_of(capacities, client, headers, "ann")
    before = int(records.redis.get(f"masksmith:owner:{key}:record_bytes"))
    assert before > 4096
    monkeypatch.setattr(client.app.state.masksmith.settings, "key_broker_bytes", before + 9000)
    parts = {f"t{number}": np.ones((4, 4), "float32") for number in range(4)}
    query = {"pattern": "2:4"}
    response = client.post("/v1/masks", params=query, content=safetensors.numpy.save(parts), headers=headers["ann"])
    assert (response.status_code, response.json()["code"]) == (429, "too_many_bytes")
    assert "key_broker_bytes" in response.json()["detail"]
    assert client.post(
        "/v1/masks", params=query, content=safetensors.numpy.save(parts), headers=headers["bob"]
    ).is_success
    assert client.delete(f"/v1/jobs/{job}", headers=headers["ann"]).status_code == 204
    # What is left are the uploads.
    digests = records.redis.zcount("masksmith:uploads", "-inf", "inf")
    assert int(records.redis.get(f"masksmith:owner:{key}:record_bytes")) <= 1024 * digests


def test_the_oldest_session_of_a_key_ends(site, records, valkey, monkeypatch):
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 3)
    client, headers, _, _ = site
    token = headers["bob"]["Authorization"].partition(" ")[2]
    cookies = []
    for _ in range(5):
        client.cookies.clear()
        answer = client.post("/v1/session", json={"token": token})
        cookies.append(answer.cookies["masksmith_session"])
    client.cookies.clear()
    assert len(records.redis.keys("masksmith:session:*")) == 3
    statuses = [
        client.get("/v1/session", headers={"Cookie": f"masksmith_session={each}"}).status_code for each in cookies
    ]
    assert statuses[-1] == 200
    assert statuses.count(401) == 2


def test_a_session_that_was_logged_out_ends_no_other(site, monkeypatch):
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 2)
    client, headers, _, _ = site
    token = headers["bob"]["Authorization"].partition(" ")[2]
    first = client.post("/v1/session", json={"token": token}).cookies["masksmith_session"]
    for _ in range(3):
        client.cookies.clear()
        assert client.post("/v1/session", json={"token": token}).status_code == 200
        assert client.delete("/v1/session").status_code == 204
    client.cookies.clear()
    assert client.get("/v1/session", headers={"Cookie": f"masksmith_session={first}"}).status_code == 200


def test_large_documents_are_counted_before_they_are_read(site):
    client, headers, _, capacities = site
    key = key_of(capacities, client, headers, "ann")
    document = json.dumps({"pattern": "2:4", "tensors": [], "name": " " * 1000}).encode()
    capacities.memory.held_by_key[key] = capacities.memory.share_of(key) - cost("document") * len(document) + 1
    response = client.post("/v1/jobs", content=document, headers=headers["ann"])
    assert (response.status_code, response.json()["bound"]) == (429, "request_memory_bytes")
    capacities.memory.held_by_key[key] -= 1
    assert client.post("/v1/jobs", content=document, headers=headers["ann"]).status_code == 422
    del capacities.memory.held_by_key[key]


def test_a_path_with_a_control_character_is_refused_before_its_key_and_body(site):
    client, headers, job, _ = site
    for method, path in OPERATIONS:
        response = call(client, method, path + "%0A", job, {}, content=b"x" * 2 * limit("login_bytes"))
        assert response.status_code == 400, (method, path)
        if method != "HEAD":
            assert response.json()["code"] == "malformed_request"
            assert "U+000A" in response.json()["detail"]
    for character in ("%00", "%1F", "%7F", "%C2%85"):
        assert client.get(f"/v1/jobs{character}x", headers=headers["ann"]).status_code == 400
    assert client.get("/v1/jobs/%C3%A9%20x", headers=headers["ann"]).json()["code"] == "job_not_found"


@pytest.mark.parametrize("key_is_full", [True, False])
@pytest.mark.parametrize("damage", [None, parts_key])
def test_a_job_that_a_key_may_not_see_is_never_told_from_none(site, records, key_is_full, damage):
    """Neither by the memory that its parts take, nor by a record that cannot be read."""
    client, headers, job, capacities = site
    _, token = Keys(records.redis).create("eve", Role.USER)
    headers["eve"] = {"Authorization": f"Bearer {token}"}
    records.redis.hset(job_key(job), "total", MAX_PARTS_ON_LOOP + 1)
    capacities.owners_and_part_counts.clear()
    if damage is not None:
        records.redis.delete(damage(job))
        records.redis.lpush(damage(job), "x")
    key = key_of(capacities, client, headers, "eve")
    for _ in range(2):  # what was read the first time is cached
        capacities.memory.held_by_key[key] = capacities.memory.share_of(key) * key_is_full
        responses = [client.get(f"/v1/jobs/{each}", headers=headers["eve"]) for each in (job, job[::-1])]
        del capacities.memory.held_by_key[key]
        assert [response.status_code for response in responses] == [404, 404]
        first, second = ([response.json()["code"], response.json()["detail"]] for response in responses)
        assert str(first).replace(job, "") == str(second).replace(job[::-1], "")
