"""Security headers, which every response has."""

import pytest
from starlette.testclient import TestClient

from masksmith_service import connection
from masksmith_service.app import create_app
from masksmith_service.errors import RequestError
from masksmith_state.keys import Keys, Role
from masksmith_wire.errors import Code

EXPECTED = {"cache-control": "no-store", "x-content-type-options": "nosniff", "referrer-policy": "same-origin"}
PAGES = [
    "/",
    "/compare",
    "/login",
    "/pattern?pattern=2:4",
    "/jobs",
    "/jobs/x",
    "/static/masksmith.css",
    "/favicon.ico",
    "/nowhere",
]


def check(headers):
    assert {name: headers.get(name) for name in EXPECTED} == EXPECTED
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.fixture(params=["with a key", "without a key"])
def caller(request, settings, records):
    _, token = Keys(records.redis).create("ann", Role.ADMIN)
    headers = {"Authorization": f"Bearer {token}"} if request.param == "with a key" else {}
    with TestClient(create_app(settings), raise_server_exceptions=False, headers=headers) as client:
        yield client


def test_every_address_and_page(caller):
    paths = caller.app.openapi()["paths"]
    answered = 0
    for path, methods in paths.items():
        for method in methods:
            place = path.replace("{digest}", "0" * 64).replace("{job}", "0" * 27).replace("{key}", "0" * 10)
            check(caller.request(method, place).headers)
            answered += 1
    assert answered >= 20
    for page in PAGES:
        check(caller.get(page, headers={"Accept": "text/html"}, follow_redirects=False).headers)
    check(caller.request("TRACE", "/v1/jobs").headers)
    check(caller.get("/", headers={"Host": "evil.example"}).headers)


def test_answers_with_data(client, submit, good, put):
    job = submit()["id"]
    put(good)
    client.post(f"/v1/jobs/{job}/cancel")
    for path in (f"/v1/jobs/{job}", f"/v1/jobs/{job}/masks", f"/jobs/{job}", "/v1/jobs", "/openapi.json", "/metrics"):
        check(client.get(path).headers)
    with client.stream("GET", f"/v1/jobs/{job}/events") as stream:
        check(stream.headers)


def test_an_unexpected_error_is_a_500_without_details(client, app, monkeypatch):
    monkeypatch.setattr(type(app.state.masksmith.records), "summaries", lambda *_: 1 / 0)
    response = client.get("/v1/jobs")
    assert response.status_code == 500
    check(response.headers)


def test_a_new_token_and_a_session(settings, records):
    _, token = Keys(records.redis).create("ops", Role.ADMIN)
    with TestClient(create_app(settings), headers={"Authorization": f"Bearer {token}"}) as client:
        for response in (
            client.post("/v1/keys", json={"name": "bob"}),
            client.post("/v1/session", json={"token": token}),
        ):
            assert response.status_code < 300
            check(response.headers)


def test_answers_of_the_connection_itself():
    response = connection._encode_response(RequestError(Code.MALFORMED_REQUEST, "x"))
    lines = response.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    check({name.decode(): value.decode() for name, _, value in (line.partition(b": ") for line in lines)})
