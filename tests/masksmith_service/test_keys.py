"""Authentication by keys, and which jobs and uploads each key can see."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from blake3 import blake3
from starlette.testclient import TestClient
from support.processes import poll

from masksmith_client import Client
from masksmith_client.transport.blocking_session import BlockingSession
from masksmith_service.app import create_app
from masksmith_service.auth import rates
from masksmith_service.auth.principal import COOKIE_NAME
from masksmith_state.keys import Keys, Quotas, Role


@pytest.fixture
def keys(records):
    return Keys(records.redis)


@pytest.fixture
def made(keys):
    """Make a key; gives its headers."""

    def made(name="ann", role=Role.USER, **quotas):
        return {"Authorization": f"Bearer {keys.create(name, role, Quotas(**quotas))[1]}"}

    return made


def check_refused(response, status, code, *words):
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (response.status_code, problem["code"]) == (status, code), problem
    assert all(word in problem["detail"] for word in words), problem
    return problem


def submit(client, good, headers, **more):
    return client.post("/v1/masks", params={"pattern": "2:4"}, content=good, headers=headers | more)


def test_nobody_needs_a_key_on_loopback_until_one_is_made(client, made):
    assert client.get("/v1/session").json() == {"key": None, "name": "local", "role": "admin"}
    assert client.get("/v1/jobs").status_code == 200
    ann = made()
    response = client.get("/v1/jobs")
    check_refused(response, 401, "unauthorized", "MASKSMITH_TOKEN", "masksmith keys create")
    assert response.headers["www-authenticate"] == "Bearer"
    assert client.get("/v1/jobs", headers=ann).status_code == 200


@pytest.mark.parametrize(("insecure", "status"), [(False, 401), (True, 200)])
def test_elsewhere_a_key_is_needed_unless_said_otherwise(settings, insecure, status):
    open_to_all = settings.model_copy(update={"host": "0.0.0.0", "insecure": insecure})
    with TestClient(create_app(open_to_all)) as client:
        assert client.get("/v1/jobs").status_code == status
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").json()["code"] == "no_worker"


def test_every_address_but_the_open_ones_takes_a_key(app, client, made):
    made()
    is_open = {"/healthz", "/readyz"}
    asked = 0
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            if path in is_open or (path == "/v1/session" and method != "get"):
                continue
            place = path.replace("{digest}", "0" * 64).replace("{job}", "x").replace("{key}", "x")
            assert client.request(method, place).status_code == 401, (method, path)
            asked += 1
    assert asked >= 12
    assert client.get("/nowhere").status_code == 401


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Bearer x", "Basic YTpi", "Bearer msk_0123456789_" + "A" * 43])
def test_texts_that_are_no_token(client, made, header):
    made()
    check_refused(client.get("/v1/jobs", headers={"Authorization": header}), 401, "unauthorized")


def test_a_revoked_key_is_refused_at_once(client, keys, made):
    info, token = keys.create("ann")
    headers = {"Authorization": f"Bearer {token}"}
    assert client.get("/v1/session", headers=headers).json() == {"key": info.id, "name": "ann", "role": "user"}
    client.post("/v1/session", json={"token": token})
    assert client.get("/v1/session").status_code == 200
    keys.revoke(info.id)
    check_refused(client.get("/v1/session", headers=headers), 401, "unauthorized", "revoked")
    assert client.get("/v1/session").status_code == 401


def test_a_revoked_key_ends_its_event_streams(client, keys, records, good):
    info, token = keys.create("ann")
    headers = {"Authorization": f"Bearer {token}"}
    job = submit(client, good, headers).json()["id"]
    answers = []
    follower = threading.Thread(
        target=lambda: answers.append(client.get(f"/v1/jobs/{job}/events", headers=headers)), daemon=True
    )
    follower.start()
    poll(lambda: any(client["cmd"] == "xread" for client in records.redis.client_list()))
    keys.revoke(info.id)
    follower.join(300)
    assert answers[0].status_code == 200
    assert "queued" in answers[0].text


def test_a_key_sees_its_own_jobs_and_an_admin_all(client, made, good):
    ann, bob, root = made("ann"), made("bob"), made("root", Role.ADMIN)
    mine = [submit(client, good, ann).json()["id"] for _ in range(3)]
    his = submit(client, good, bob).json()["id"]
    assert [job["id"] for job in client.get("/v1/jobs", headers=ann).json()["jobs"]] == mine[::-1]
    assert [job["id"] for job in client.get("/v1/jobs", headers=bob).json()["jobs"]] == [his]
    assert [job["id"] for job in client.get("/v1/jobs", headers=root).json()["jobs"]] == [his, *mine[::-1]]
    page = client.get("/v1/jobs", params={"limit": 1, "after": mine[2]}, headers=ann).json()
    assert [job["id"] for job in page["jobs"]] == [mine[1]]
    for method, path in [("GET", ""), ("GET", "/masks"), ("GET", "/events"), ("POST", "/cancel"), ("DELETE", "")]:
        there = client.request(method, f"/v1/jobs/{mine[0]}{path}", headers=bob)
        nowhere = client.request(method, f"/v1/jobs/{'0' * 27}{path}", headers=bob)
        check_refused(there, 404, "job_not_found")
        assert there.json()["detail"].replace(mine[0], "") == nowhere.json()["detail"].replace("0" * 27, "")
    assert client.get(f"/v1/jobs/{mine[0]}", headers=ann).json()["state"] == "queued"
    assert client.post(f"/v1/jobs/{mine[0]}/cancel", headers=root).json()["state"] == "canceled"
    assert client.delete(f"/v1/jobs/{mine[0]}", headers=ann).status_code == 204
    assert len(client.get("/v1/jobs", headers=ann).json()["jobs"]) == 2


def test_idempotency_keys_of_two_keys_do_not_meet(client, made, good):
    ann, bob = made("ann"), made("bob")
    one, other, again = (submit(client, good, who, **{"Idempotency-Key": "k"}).json()["id"] for who in (ann, bob, ann))
    assert one == again != other


def test_workers_and_keys_are_for_admins(client, made):
    ann, root = made("ann"), made("root", Role.ADMIN)
    for method, path in [("GET", "/v1/workers"), ("GET", "/v1/keys"), ("POST", "/v1/keys"), ("DELETE", "/v1/keys/x")]:
        check_refused(client.request(method, path, json={"name": "x"}, headers=ann), 403, "forbidden", "'ann'")
    assert client.get("/v1/workers", headers=root).json() == []
    new = client.post("/v1/keys", json={"name": "eve", "live_jobs": 1}, headers=root)
    assert new.status_code == 201
    eve = {"Authorization": f"Bearer {new.json()['token']}"}
    assert client.get("/v1/session", headers=eve).json()["name"] == "eve"
    listed = client.get("/v1/keys", headers=root)
    assert [(key["name"], key["live_jobs"]) for key in listed.json()] == [("ann", None), ("root", None), ("eve", 1)]
    assert "token" not in listed.text
    assert "hash" not in listed.text
    assert client.delete(f"/v1/keys/{new.json()['id']}", headers=root).status_code == 204
    assert client.get("/v1/session", headers=eve).status_code == 401
    check_refused(client.delete("/v1/keys/nobody", headers=root), 404, "key_not_found", "nobody")


def test_the_first_key_is_not_made_over_http(client):
    check_refused(client.post("/v1/keys", json={"name": "x"}), 403, "forbidden", "masksmith keys create")


def test_a_key_may_have_so_many_live_jobs(client, made, good):
    ann, bob = made("ann", live_jobs=2), made("bob")
    first = submit(client, good, ann, **{"Idempotency-Key": "k"}).json()["id"]
    submit(client, good, ann)
    response = submit(client, good, ann)
    problem = check_refused(response, 429, "too_many_jobs", "'ann'", "live_jobs")
    assert (problem["limit"], response.headers["retry-after"]) == (2, "10")
    assert submit(client, good, ann, **{"Idempotency-Key": "k"}).json()["id"] == first
    assert submit(client, good, bob).status_code == 202
    client.post(f"/v1/jobs/{first}/cancel", headers=ann)
    assert submit(client, good, ann).status_code == 202
    client.delete(f"/v1/jobs/{first}", headers=ann)
    assert submit(client, good, ann).status_code == 429


def test_the_same_request_again_gets_its_job_however_full_it_is(app, client, good, submit):
    app.state.masksmith.settings.max_live_jobs = 1
    job = submit(**{"Idempotency-Key": "k"})
    assert client.post("/v1/masks", params={"pattern": "2:4"}, content=good).status_code == 503
    assert submit(**{"Idempotency-Key": "k"})["id"] == job["id"]


def test_a_key_may_send_so_many_requests(client, made, monkeypatch):
    # A token in a thousand seconds: none comes while the test runs.
    monkeypatch.setattr(rates, "BURST_S", 5000.0)
    ann, bob = made("ann", requests_s=0.001), made("bob")
    codes = [client.get("/v1/session", headers=ann).status_code for _ in range(5)]
    assert codes == [200] * 5
    response = client.get("/v1/session", headers=ann)
    assert check_refused(response, 429, "rate_limited", "'ann'", "requests_s")["limit"] == 0.001
    assert 1 <= int(response.headers["retry-after"]) <= 1000
    assert client.get("/v1/session", headers=bob).status_code == 200


def test_an_empty_bucket_fills_also_if_the_clock_is_set_back(client, made, records, monkeypatch):
    """Its time is an hour ahead then: it was empty until that time."""
    ann = made("ann", requests_s=100)
    assert client.get("/v1/session", headers=ann).status_code == 200
    [bucket] = records.redis.scan_iter("masksmith:rate:*")
    records.redis.hset(bucket, mapping={"left": 0.5, "at": records.now() + 3600})
    assert client.get("/v1/session", headers=ann).status_code == 429
    assert float(records.redis.hget(bucket, "at")) < records.now() + 60
    deadline = time.monotonic() + 60
    while client.get("/v1/session", headers=ann).status_code == 429:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_requests_at_once_are_all_counted(client, made, monkeypatch):
    monkeypatch.setattr(rates, "BURST_S", 10_000.0)
    ann = made("ann", requests_s=0.001)
    with ThreadPoolExecutor(8) as pool:
        codes = [*pool.map(lambda _: client.get("/v1/session", headers=ann).status_code, range(40))]
    assert (codes.count(200), codes.count(429)) == (10, 30)


def test_a_cookie_stands_for_a_key(client, keys, good):
    info, token = keys.create("ann")
    response = client.post("/v1/session", json={"token": token})
    assert response.json() == {"key": info.id, "name": "ann", "role": "user"}
    words = {word.strip().lower() for word in response.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= words
    assert token not in response.headers["set-cookie"]
    job = client.post("/v1/masks", params={"pattern": "2:4"}, content=good).json()["id"]
    assert keys.any_exist()
    client.post(f"/v1/jobs/{job}/cancel")
    assert "canceled" in client.get(f"/v1/jobs/{job}/events").text
    cookie = client.cookies[COOKIE_NAME]
    assert client.delete("/v1/session").status_code == 204
    assert COOKIE_NAME not in client.cookies
    client.cookies.set(COOKIE_NAME, cookie)
    assert client.get("/v1/jobs").status_code == 401


def test_a_form_logs_in_too_and_goes_on_to_the_page(client, keys):
    token = keys.create("ann")[1]
    response = client.post("/v1/session", data={"token": f" {token} "}, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, "../")
    assert client.get("/v1/session").json()["name"] == "ann"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"token": 3}', b"[]", b"\xff", b'{"token": "' + b"x" * 300 + b'"}'])
def test_an_invalid_login_is_rejected(client, body):
    response = client.post("/v1/session", content=body, headers={"Content-Type": "application/json"})
    check_refused(response, 422, "invalid_document")
    wrong = client.post("/v1/session", json={"token": "msk_secret"})
    check_refused(wrong, 401, "unauthorized")
    assert "msk_secret" not in wrong.text


def test_a_session_of_https_stays_there(settings, keys):
    with TestClient(create_app(settings), base_url="https://testserver") as client:
        response = client.post("/v1/session", json={"token": keys.create("ann")[1]})
    assert "secure" in response.headers["set-cookie"].lower()


def test_a_key_records_when_it_was_last_used(client, keys, made):
    made()
    assert keys.all()[0].last_used_at is None
    client.get("/v1/jobs", headers=made("bob"))
    assert [key.last_used_at is None for key in keys.all()] == [True, False]


def test_an_upload_exists_for_the_key_that_has_sent_it(client, made, save, on_disk):
    ann, bob, root = made("ann"), made("bob"), made("root", Role.ADMIN)
    data = save({"w": np.ones((4, 4), np.float32)})
    digest = blake3(data).hexdigest()
    path, document = (
        f"/v1/tensors/{digest}",
        {"pattern": "2:4", "tensors": [{"name": "w", "digest": digest, "key": "w"}]},
    )
    assert client.put(path, content=data, headers=ann).status_code == 201
    assert [client.head(path, headers=who).status_code for who in (ann, bob, root)] == [200, 404, 200]
    never = document | {"tensors": [{"name": "w", "digest": "0" * 64, "key": "w"}]}
    wrong = document | {"tensors": [{"name": "w", "digest": digest, "key": "nothing"}]}
    for there in (document, wrong):
        response = client.post("/v1/jobs", json=there, headers=bob)
        nowhere = client.post("/v1/jobs", json=never, headers=bob).json()["detail"]
        check_refused(response, 409, "upload_not_found", digest)
        assert response.json()["detail"].replace(digest, "") == nowhere.replace("0" * 64, "")
    cut = client.put(path, content=data[:-1], headers=bob)
    check_refused(cut, 400, "invalid_safetensors", "truncated")
    assert client.head(path, headers=bob).status_code == 404
    assert client.put(path, content=data, headers=bob).status_code == 201
    assert client.put(path, content=data, headers=bob).status_code == 200
    assert client.post("/v1/jobs", json=document, headers=bob).status_code == 202
    assert client.post("/v1/jobs", json=document, headers=root).status_code == 202
    assert on_disk.files() == [f"tensors/{digest[:2]}/{digest}"]


def test_a_calibration_of_another_key_is_not_found(client, made, save):
    ann, bob = made("ann"), made("bob")
    data, norms = save({"w": np.ones((4, 4), np.float32)}), save({"w/norms": np.ones(4, np.float32)})
    digest = blake3(norms).hexdigest()
    client.put(f"/v1/tensors/{digest}", content=norms, headers=ann)
    params = {"pattern": "2:4", "scores": "wanda", "calibration": digest}
    assert client.post("/v1/masks", params=params, content=data, headers=ann).status_code == 202
    check_refused(client.post("/v1/masks", params=params, content=data, headers=bob), 409, "upload_not_found", digest)


def test_a_key_may_keep_so_many_bytes(client, made, save, on_disk):
    files = [save({"w": np.full((4, 4), k, np.float32)}) for k in range(3)]
    size = len(files[0])
    ann, bob = made("ann", stored_bytes=2 * size + 10), made("bob")
    digests = [blake3(data).hexdigest() for data in files]
    for digest, data in zip(digests[:2], files[:2], strict=True):
        assert client.put(f"/v1/tensors/{digest}", content=data, headers=ann).status_code == 201
    for content in (files[2], iter([files[2]])):
        response = client.put(f"/v1/tensors/{digests[2]}", content=content, headers=ann)
        problem = check_refused(response, 429, "too_many_bytes", "'ann'", "stored_bytes")
        assert (problem["limit"], response.headers["retry-after"]) == (2 * size + 10, "3600")
    assert len(on_disk.files()) == 2
    assert client.put(f"/v1/tensors/{digests[0]}", content=files[0], headers=ann).status_code == 200
    assert client.put(f"/v1/tensors/{digests[2]}", content=files[2], headers=bob).status_code == 201
    job = {"pattern": "2:4", "tensors": [{"name": "w", "digest": digests[0], "key": "w"}]}
    jobs = [client.post("/v1/jobs", json=job, headers=ann) for _ in range(3)]
    assert [response.status_code for response in jobs] == [202, 202, 429]
    check_refused(jobs[2], 429, "too_many_bytes")
    client.delete(f"/v1/jobs/{jobs[0].json()['id']}", headers=ann)
    assert client.post("/v1/jobs", json=job, headers=ann).status_code == 202


def test_no_address_reveals_a_job_to_another_key(app, client, made, good):
    ann, bob = made("ann"), made("bob")
    job = submit(client, good, ann).json()["id"]
    asked = 0
    routers = [included.original_router for included in app.routes if hasattr(included, "original_router")]
    for route in (route for router in routers for route in router.routes if "{job}" in route.path):
        for method in route.methods - {"HEAD"}:
            place = route.path.replace("{job}", job) + "?tensor=layer.weight"
            response = client.request(method, place, headers=bob | {"Accept": "text/html"})
            assert response.status_code == 404, (method, route.path)
            asked += 1
    assert asked >= 9
    assert client.get(f"/v1/jobs/{job}", headers=ann).json()["state"] == "queued"


def test_expired_uploads_go_while_the_service_runs(settings, save, on_disk, monkeypatch):
    monkeypatch.setattr("masksmith_state.blobs.retention.PERIOD_S", 0.1)
    quick = settings.model_copy(update={"sweep_s": 0.05, "upload_age_s": 0.3, "result_age_s": 0.3})
    data = save({"w": np.ones((4, 4), np.float32)})
    digest = blake3(data).hexdigest()
    with TestClient(create_app(quick)) as client:
        job = client.post("/v1/masks", params={"pattern": "2:4"}, content=data).json()["id"]
        time.sleep(1.0)
        assert client.head(f"/v1/tensors/{digest}").status_code == 200
        assert on_disk.files() != []
        client.post(f"/v1/jobs/{job}/cancel")
        poll(lambda: on_disk.names() == ["installation.json"] and not client.get("/v1/jobs").json()["jobs"])
        assert client.get(f"/v1/jobs/{job}").json()["code"] == "job_not_found"


def test_the_client_waits_as_retry_after_says(settings, keys, records, monkeypatch):
    info, token = keys.create("ann", quotas=Quotas(requests_s=0.02))
    pauses = []

    async def wait_for_a_token(session, seconds):
        pauses.append(seconds)
        records.redis.delete(f"masksmith:rate:{info.id}")

    monkeypatch.setattr(BlockingSession, "sleep", wait_for_a_token)
    with TestClient(create_app(settings)) as server:
        assert server.get("/v1/session", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        with Client("http://testserver", token=token, transport=server._transport) as client:
            assert list(client.jobs.list()) == []
    assert len(pauses) == 1
    assert 1 < pauses[0] <= 50


def test_logins_are_rate_limited(client, keys):
    _, token = keys.create("ann", Role.USER, Quotas(requests_s=0.001))
    statuses = [client.post("/v1/session", json={"token": token}).status_code for _ in range(3)]
    assert statuses == [200, 429, 429]
