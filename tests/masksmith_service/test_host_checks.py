"""Requests with other host names and from pages of other origins, which are rejected."""

import socket

import pytest
from starlette.datastructures import URL
from starlette.requests import Request
from starlette.testclient import TestClient

from masksmith_service.app import create_app


@pytest.fixture
def ask(settings):
    """Ask a service that has no other names than those given."""
    clients = []

    def ask(method, host, allowed="", **headers):
        client = TestClient(create_app(settings.model_copy(update={"allowed_hosts": allowed})))
        clients.append(client)
        client.__enter__()
        return client.request(method, "/v1/jobs", headers={"Host": host} | headers)

    yield ask
    for client in clients:
        client.__exit__(None, None, None)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000", "x.localhost:80",
     socket.gethostname()],
)  # fmt: skip
def test_the_services_own_host_names_are_served(ask, host):
    assert ask("GET", host).status_code == 200


@pytest.mark.parametrize(("host", "allowed"), [("192.168.0.7", ""), ("10.1.2.3:8000", ""), ("anything", "*")])
def test_a_host_that_does_not_name_this_machine_takes_a_key(ask, host, allowed):
    assert ask("GET", host, allowed).status_code == 401


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
        "[::1",
        "a:b:c",
        "127.0.0.1/healthz",
        "127.0.0.1/healthz?",
        "localhost?",
        "localhost#",
        "user@localhost",
        "localhost\\x",
        "a localhost",
    ],
)
def test_other_names_are_refused(ask, host):
    response = ask("GET", host)
    assert (response.status_code, response.json()["code"]) == (421, "host_not_allowed")
    assert "MASKSMITH_ALLOWED_HOSTS" in response.json()["detail"]


def test_whether_a_request_is_public_is_decided_by_the_path_of_its_route(ask, monkeypatch):
    """A URL may be made from the field Host, in which a client can write anything."""
    monkeypatch.setattr(Request, "url", URL("http://127.0.0.1/healthz"))
    assert ask("GET", "10.1.2.3").status_code == 401


def test_allowed_host_names_are_served(ask):
    assert ask("GET", "gpu-box.lan:8000", "other, GPU-box.lan").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:9000"}, {"Origin": "http://[::"},
     {"Sec-Fetch-Site": "cross-site"}],
    ids=["elsewhere", "null", "another port", "malformed", "no origin"],
)  # fmt: skip
def test_pages_of_other_origins_cannot_write(ask, headers):
    response = ask("POST", "127.0.0.1:8000", **headers)
    assert (response.status_code, response.json()["code"]) == (403, "foreign_origin")
    assert ask("GET", "127.0.0.1:8000", **headers).status_code == 200


@pytest.mark.parametrize("headers", [{"Origin": "http://127.0.0.1:8000"}, {}, {"Sec-Fetch-Site": "same-origin"}])
def test_own_pages_and_programs_may_write(ask, headers):
    assert ask("POST", "127.0.0.1:8000", **headers).json()["code"] == "invalid_document"


def test_a_page_behind_a_proxy_may_write_once_its_host_is_allowed(ask):
    assert (
        ask("POST", "127.0.0.1", "masks.example", Origin="https://masks.example").json()["code"] == "invalid_document"
    )


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Host", ["localhost", "evil.example"]),
        ("Origin", ["http://localhost", "http://evil.example"]),
        ("Authorization", ["Bearer a", "Bearer b"]),
        ("Sec-Fetch-Site", ["same-origin", "cross-site"]),
    ],
)
def test_a_field_by_which_access_is_decided_may_come_once(settings, name, values):
    fields = [(name, value) for value in values] + ([] if name == "Host" else [("Host", "localhost")])
    with TestClient(create_app(settings)) as client:
        response = client.get("/v1/jobs", headers=fields)
    assert (response.status_code, response.json()["code"]) == (400, "malformed_request")
    assert f"2 {name} fields" in response.json()["detail"]
