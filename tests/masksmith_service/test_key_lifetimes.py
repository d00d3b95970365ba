"""Expiry of keys, rotation of their tokens, and scopes."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import redis
from starlette.testclient import TestClient

from masksmith_service.app import create_app
from masksmith_service.auth import middleware
from masksmith_service.auth.principal import is_valid
from masksmith_service.auth.scopes import accepted_scopes
from masksmith_service.jobs import routes
from masksmith_state.keys import Keys, Role, Scope, redis_key_of

PAST = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def keys(records):
    return Keys(records.redis)


@pytest.fixture
def client(settings):
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def status(client, token, path="/v1/jobs", method="GET", **options):
    client.cookies.clear()
    return client.request(method, path, headers=bearer(token), **options).status_code


def test_a_key_expires(client, keys, records):
    info, token = keys.create("ann", expires_at=datetime.now(UTC) + timedelta(days=1))
    assert status(client, token) == 200
    client.post("/v1/session", json={"token": token})
    assert client.get("/v1/jobs").status_code == 200
    records.redis.hset(redis_key_of(info.id), "expires_at", PAST.isoformat())
    assert client.get("/v1/jobs").status_code == 401
    assert client.post("/v1/session", json={"token": token}).status_code == 401
    assert status(client, token) == 401
    assert "expired" in client.get("/v1/jobs", headers=bearer(token)).json()["detail"]
    assert not keys.get(info.id).is_valid


def test_blanks_and_tabs_part_the_scheme_from_the_token(client, keys):
    _, token = keys.create("ann")
    for header in (f"Bearer\t{token}", f"bearer  {token} "):
        assert client.get("/v1/session", headers={"Authorization": header}).json()["name"] == "ann"


def test_the_expiry_of_the_last_key_does_not_disable_authentication(client, keys):
    _, token = keys.create("ann", expires_at=PAST)
    assert status(client, token) == 401
    assert client.get("/v1/jobs").status_code == 401


def test_a_rotated_key_takes_both_tokens_until_the_overlap_ends(client, keys, records):
    info, old = keys.create("ann")
    rotated, new = keys.rotate(info.id, 60)
    assert (rotated.id, rotated.name) == (info.id, "ann")
    assert (status(client, old), status(client, new)) == (200, 200)
    records.redis.hset(redis_key_of(info.id), "old_until", PAST.isoformat())
    assert (status(client, old), status(client, new)) == (401, 200)


def test_a_rotation_without_overlap_ends_the_token_at_once(client, keys):
    info, old = keys.create("ann")
    _, new = keys.rotate(info.id, 0)
    assert (status(client, old), status(client, new)) == (401, 200)


def test_an_expired_key_gets_no_token_without_a_new_end(client, keys):
    info, _ = keys.create("ann", expires_at=PAST)
    assert keys.rotate(info.id, 0) is None
    assert status(client, keys.rotate(info.id, 0, datetime.now(UTC) + timedelta(days=1))[1]) == 200


def test_the_token_of_an_expired_key_stays_invalid_when_the_key_gets_a_new_one(client, keys, records):
    info, first = keys.create("ann")
    _, second = keys.rotate(info.id, 600)
    records.redis.hset(redis_key_of(info.id), "expires_at", PAST.isoformat())
    _, third = keys.rotate(info.id, 600, datetime.now(UTC) + timedelta(days=1))
    assert [status(client, token) for token in (first, second, third)] == [401, 401, 200]


def test_only_the_latest_two_tokens_can_be_valid(client, keys):
    info, first = keys.create("ann")
    _, second = keys.rotate(info.id, 600)
    _, third = keys.rotate(info.id, 600)
    assert [status(client, token) for token in (first, second, third)] == [401, 200, 200]


def test_tokens_of_two_rotations_at_the_same_time_are_both_valid(client, keys, monkeypatch):
    info, first = keys.create("ann")
    read, tokens = Keys.get, []

    def rotate_again_after_reading(self, key):
        present = read(self, key)
        monkeypatch.setattr(Keys, "get", read)
        tokens.append(self.rotate(key, 600)[1])
        return present

    monkeypatch.setattr(Keys, "get", rotate_again_after_reading)
    tokens.append(keys.rotate(info.id, 600)[1])
    assert [status(client, token) for token in (first, *tokens)] == [401, 200, 200]


def test_no_text_that_is_no_id_becomes_part_of_a_redis_key(keys, monkeypatch):
    monkeypatch.setattr(keys, "_redis", None)
    assert keys.get("../x") is None
    assert keys.rotate("../x", 0) is None
    assert not keys.revoke("../x")


def test_a_session_ends_with_the_token_it_was_begun_with(client, keys, records):
    info, old = keys.create("ann")
    client.post("/v1/session", json={"token": old})
    keys.rotate(info.id, 60)
    assert client.get("/v1/jobs").status_code == 200
    records.redis.hset(redis_key_of(info.id), "old_until", PAST.isoformat())
    assert client.get("/v1/jobs").status_code == 401


@pytest.mark.parametrize("field", ["expires_at", "old_until"])
def test_a_stream_ends_with_its_token(client, keys, records, good, monkeypatch, field):
    info, token = keys.create("ann")
    job = client.post("/v1/masks", params={"pattern": "2:4"}, content=good, headers=bearer(token)).json()["id"]
    keys.rotate(info.id, 600)
    valid = []

    async def expire_after_the_first_check(*arguments):
        if valid:
            records.redis.hset(redis_key_of(info.id), field, PAST.isoformat())
        valid.append(await is_valid(*arguments))
        return valid[-1]

    monkeypatch.setattr(routes, "is_valid", expire_after_the_first_check)
    with client.stream("GET", f"/v1/jobs/{job}/events", headers=bearer(token)) as stream:
        assert stream.status_code == 200
        assert "queued" in "".join(stream.iter_text())
    assert valid == [True, False]


def test_a_rotated_key_keeps_its_jobs(client, keys, good):
    info, old = keys.create("ann")
    job = client.post("/v1/masks", params={"pattern": "2:4"}, content=good, headers=bearer(old)).json()["id"]
    _, new = keys.rotate(info.id, 0)
    assert status(client, new, f"/v1/jobs/{job}") == 200


def test_admins_rotate_keys_over_http(client, keys):
    _, ops = keys.create("ops", Role.ADMIN)
    info, old = keys.create("ann")
    answer = client.post(f"/v1/keys/{info.id}/rotate", json={"overlap_s": 0}, headers=bearer(ops))
    assert answer.status_code == 201
    assert (status(client, old), status(client, answer.json()["token"])) == (401, 200)
    assert status(client, ops, "/v1/keys/0000000000/rotate", "POST", json={}) == 404
    assert status(client, answer.json()["token"], f"/v1/keys/{info.id}/rotate", "POST", json={}) == 403
    keys.revoke(info.id)
    assert status(client, ops, f"/v1/keys/{info.id}/rotate", "POST", json={}) == 404


def test_keys_with_scopes_and_an_end_are_made_over_http(client, keys):
    _, ops = keys.create("ops", Role.ADMIN)

    def create(**members):
        return client.post("/v1/keys", json={"name": "bob", **members}, headers=bearer(ops))

    made = create(scopes=["read"], expires_at="2099-01-01T00:00:00Z").json()
    assert (made["scopes"], made["expires_at"]) == (["read"], "2099-01-01T00:00:00Z")
    for wrong in (
        {"scopes": []},
        {"scopes": ["administer"]},
        {"scopes": ["fly"]},
        {"role": "admin", "scopes": ["read"]},
        {"weight": "2"},
        {"expires_at": "soon"},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "2099-01-01T00:00:00"},
        {"requests_s": 1e10},
        {"requests_s": 1e-300},
    ):
        assert create(**wrong).status_code == 422, wrong
    # JSON has no infinity, but a number that is read as one.
    infinite = client.post("/v1/keys", content='{"name": "bob", "requests_s": 1e999}', headers=bearer(ops))
    assert infinite.status_code == 422


# What each scope allows; every other request of the table is refused with 403.
REQUESTS = {
    ("GET", "/v1/jobs"): {Scope.READ},
    ("GET", "/v1/jobs/{job}"): {Scope.READ},
    ("GET", "/v1/jobs/{job}/events"): {Scope.READ},
    ("GET", "/v1/jobs/{job}/pruned"): {Scope.READ},
    ("GET", "/v1/jobs/{job}/masks"): {Scope.READ},
    ("GET", "/v1/jobs/{job}/weights"): {Scope.READ},
    ("GET", "/v1/jobs/{job}/output"): {Scope.READ},
    ("GET", "/v1/references"): {Scope.READ},
    ("GET", "/v1/jobs/{job}/benchmark"): {Scope.READ},
    ("GET", "/v1/jobs/{job}/window"): {Scope.READ},
    ("GET", "/v1/jobs/{job}/profile"): {Scope.READ},
    ("GET", "/jobs"): {Scope.READ},
    ("GET", "/jobs/{job}"): {Scope.READ},
    ("GET", "/jobs/{job}/layer"): {Scope.READ},
    ("GET", "/compare"): {Scope.READ},
    ("POST", "/v1/masks"): {Scope.SUBMIT},
    ("POST", "/v1/outputs"): {Scope.SUBMIT},
    ("POST", "/v1/selection"): {Scope.SUBMIT},
    ("POST", "/v1/jobs"): {Scope.SUBMIT, Scope.BENCHMARK},
    ("POST", "/v1/jobs/{job}/cancel"): {Scope.SUBMIT, Scope.BENCHMARK},
    ("POST", "/jobs/{job}/cancel"): {Scope.SUBMIT, Scope.BENCHMARK},
    ("DELETE", "/v1/jobs/{job}"): {Scope.SUBMIT, Scope.BENCHMARK},
    ("POST", "/v1/tensors"): {Scope.SUBMIT},
    ("PUT", "/v1/tensors/{digest}"): {Scope.SUBMIT},
    ("HEAD", "/v1/tensors/{digest}"): {Scope.SUBMIT},
    ("DELETE", "/v1/tensors/{digest}"): {Scope.SUBMIT},
    ("GET", "/v1/workers"): {Scope.ADMINISTER},
    ("GET", "/metrics"): {Scope.ADMINISTER},
    ("GET", "/v1/keys"): {Scope.ADMINISTER},
    ("POST", "/v1/keys"): {Scope.ADMINISTER},
    ("POST", "/v1/keys/{key}/rotate"): {Scope.ADMINISTER},
    ("DELETE", "/v1/keys/{key}"): {Scope.ADMINISTER},
}
ANY = {"/v1/patterns", "/v1/solvers", "/v1/kernels", "/v1/session", "/healthz", "/readyz"}
"""Addresses that every key may call, or that need none."""


def test_every_address_has_its_scope(app):
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            assert path in ANY or (method.upper(), path) in REQUESTS, (method, path)


@pytest.mark.parametrize("scope", Scope)
def test_a_key_does_what_its_scope_says_and_nothing_else(client, keys, scope):
    _, token = keys.create("one", Role.ADMIN if scope is Scope.ADMINISTER else Role.USER, scopes=[scope])
    for (method, path), allowed in REQUESTS.items():
        place = path.replace("{job}", "0" * 27).replace("{digest}", "0" * 64).replace("{key}", "0" * 10)
        assert (status(client, token, place, method) == 403) is (scope not in allowed), (method, path)
    for path in ANY:
        assert status(client, token, path) != 403


def test_scopes_are_independent(client, keys, good):
    _, submit = keys.create("a", scopes=[Scope.SUBMIT])
    _, benchmark = keys.create("b", scopes=[Scope.BENCHMARK])
    masks = {"pattern": "2:4", "tensors": [{"name": "w", "digest": "0" * 64, "key": "w"}]}
    measure = {"kind": "benchmark", "layers": [{"name": "l", "rows": 8, "cols": 8}], "patterns": ["2:4"]}
    assert status(client, submit, "/v1/jobs", "POST", json=measure) == 403
    assert status(client, benchmark, "/v1/jobs", "POST", json=masks) == 403
    assert status(client, benchmark, "/v1/masks?pattern=2:4", "POST", content=good) == 403
    assert status(client, submit, "/v1/masks?pattern=2:4", "POST", content=good) == 202
    assert status(client, benchmark, "/v1/jobs", "POST", json=measure) == 202


def test_a_new_path_requires_a_scope():
    assert accepted_scopes("GET", "/v1/new") == (Scope.READ,)
    assert accepted_scopes("POST", "/v1/new") == (Scope.SUBMIT,)


def test_a_key_of_an_earlier_version_has_the_scopes_of_its_role(client, keys, records):
    info, token = keys.create("ann")
    records.redis.hdel(redis_key_of(info.id), "scopes")
    assert set(keys.get(info.id).scopes) == {Scope.SUBMIT, Scope.READ, Scope.BENCHMARK}
    assert status(client, token) == 200


def test_a_key_whose_record_is_wrong_is_not_valid(client, keys, records, caplog):
    _, ops = keys.create("ops", Role.ADMIN)
    for field in ("role", "created_at", "scopes", "expires_at", "stored_bytes"):
        info, token = keys.create("ann")
        records.redis.hset(redis_key_of(info.id), field, "junk")
        assert status(client, token) == 401, field
    assert status(client, ops, "/v1/keys") == 200
    assert "cannot be read" in caplog.text


def send_late(client, token, method, path, query, body, before_the_end):
    """Send a request whose last byte follows `before_the_end`; gives its status."""
    pieces = iter([body[:-1], body[-1:]])
    answers = []

    async def receive():
        piece = next(pieces, None)
        if piece is None:
            return {"type": "http.disconnect"}
        if piece == body[-1:]:
            before_the_end()
        return {"type": "http.request", "body": piece, "more_body": piece == body[:-1]}

    async def send(message):
        answers.append(message)

    headers = {"host": "localhost", "authorization": f"Bearer {token}", "content-type": "application/json"}
    headers["content-length"] = str(len(body))
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "path": path, "raw_path": path.encode(),
        "query_string": query, "root_path": "", "scheme": "http", "client": ("127.0.0.1", 1), "server": ("h", 80),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()], "state": {},
    }  # fmt: skip
    client.portal.call(client.app, scope, receive, send)
    return answers[0]["status"]


@pytest.mark.parametrize("end", ["revoked", "expired", "rotated"])
def test_a_request_is_refused_whose_key_ends_before_its_body(client, keys, records, good, on_disk, monkeypatch, end):
    monkeypatch.setattr(middleware, "CHECK_AFTER_S", 0.0)
    requests = [
        ("POST", "/v1/keys", b"", json.dumps({"name": "again", "role": "admin"}).encode()),
        ("POST", "/v1/masks", b"pattern=2:4", good),
        ("POST", "/v1/tensors", b"", good),
    ]
    for request in requests:
        info, token = keys.create("ann", Role.ADMIN)
        ends = {
            "revoked": lambda key=info.id: keys.revoke(key),
            "expired": lambda key=info.id: records.redis.hset(redis_key_of(key), "expires_at", PAST.isoformat()),
            "rotated": lambda key=info.id: keys.rotate(key, 0),
        }
        assert send_late(client, token, *request, ends[end]) == 401
    assert {key.name for key in keys.all()} == {"ann"}
    assert records.live_count() == 0
    assert on_disk.files() == []
    _, token = keys.create("bob", Role.ADMIN)
    assert [send_late(client, token, *request, lambda: None) for request in requests] == [201, 202, 200]


@pytest.mark.parametrize("end", ["revoked", "broker down", "valid"])
def test_a_revoked_key_ends_its_downloads(client, keys, good, monkeypatch, caplog, end):
    info, token = keys.create("ann")
    job = client.post("/v1/masks", params={"pattern": "2:4"}, content=good, headers=bearer(token)).json()["id"]
    client.post(f"/v1/jobs/{job}/cancel", headers=bearer(token))

    async def fail(*_):
        raise redis.ConnectionError

    async def stream(*_):
        yield b"12345"
        if end == "revoked":
            keys.revoke(info.id)
        elif end == "broker down":
            monkeypatch.setattr(middleware, "is_valid", fail)
        yield b"67890"

    monkeypatch.setattr(middleware, "CHECK_AFTER_S", 0.0)
    monkeypatch.setattr("masksmith_service.jobs.results.ResultsFile.check", lambda *_: None)
    monkeypatch.setattr("masksmith_service.jobs.results.ResultsFile.stream", stream)
    response = client.get(f"/v1/jobs/{job}/masks", headers=bearer(token))
    assert response.content == (b"12345" if end == "revoked" else b"1234567890")
    assert ("its key was revoked" in caplog.text) == (end == "revoked")


@pytest.mark.parametrize("rate", ["Infinity", "NaN", "1e-300", "1e300", "0"])
def test_a_rate_that_cannot_be_counted_is_refused(client, keys, rate):
    _, token = keys.create("ops", Role.ADMIN)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    response = client.post("/v1/keys", content=f'{{"name": "x", "requests_s": {rate}}}', headers=headers)
    assert response.status_code == 422, response.text
