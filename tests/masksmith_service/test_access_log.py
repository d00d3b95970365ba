"""Request ids, the lines of the access log, and what they must not contain."""

import asyncio
import io
import json
import logging
import sys

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from masksmith_service.app import create_app
from masksmith_service.auth.principal import COOKIE_NAME
from masksmith_service.middleware.access_log import AccessLogMiddleware
from masksmith_state.keys import Keys
from masksmith_state.telemetry import logs


@pytest.fixture(params=["json", "text"])
def lines(request, monkeypatch):
    """What the log holds; everything is logged."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    errors = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", errors)
        logs.configure("DEBUG", request.param)
    yield errors.getvalue
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture
def audited(caplog):
    """The audit's lines as method and path, with their fields and what they are about."""
    caplog.set_level(logging.INFO, "masksmith_service.audit")

    def audited():
        return [
            (record.getMessage(), record.fields)
            for record in caplog.records
            if record.name == "masksmith_service.audit"
        ]

    return audited


def test_a_request_has_an_id_everywhere(client):
    response = client.get("/v1/jobs/nope", headers={"X-Request-Id": "my-id.1"})
    assert response.headers["x-request-id"] == response.json()["request_id"] == "my-id.1"
    one, other = (client.get("/healthz").headers["x-request-id"] for _ in range(2))
    assert one != other


@pytest.mark.parametrize("bad", ["", "a b", "x" * 65, "<script>", "a\tb", "é".encode()])
def test_an_id_that_could_confuse_a_log_is_replaced(client, bad):
    found = client.get("/healthz", headers={"X-Request-Id": bad}).headers["x-request-id"]
    assert found != bad
    assert len(found) == 32


def test_an_unexpected_error_has_a_request_id(app, client, monkeypatch):
    monkeypatch.setattr(type(app.state.masksmith.records), "summaries", lambda *_: 1 / 0)
    response = client.get("/v1/jobs", headers={"X-Request-Id": "abc"})
    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert response.json()["request_id"] == response.headers["x-request-id"] == "abc"


def test_every_write_leaves_a_line(client, audited, good, submit):
    job = submit()["id"]
    client.post(f"/v1/jobs/{job}/cancel")
    client.delete(f"/v1/jobs/{job}")
    client.put("/v1/tensors/abc", content=good)
    client.get("/v1/jobs")
    client.head("/v1/tensors/abc")
    assert [(text, fields["status"]) for text, fields in audited()] == [
        ("POST /v1/masks", 202), (f"POST /v1/jobs/{job}/cancel", 200), (f"DELETE /v1/jobs/{job}", 204),
        ("PUT /v1/tensors/abc", 400),
    ]  # fmt: skip


def test_a_line_names_request_job_and_key(client, lines, good, records):
    info, token = Keys(records.redis).create("ann")
    headers = {"Authorization": f"Bearer {token}", "X-Request-Id": "r-1"}
    job = client.post("/v1/masks", params={"pattern": "2:4"}, content=good, headers=headers).json()["id"]
    (line,) = [line for line in lines().splitlines() if "POST /v1/masks" in line]
    if line.startswith("{"):
        found = json.loads(line)
        assert (found["request"], found["job"], found["key"], found["status"]) == ("r-1", job, info.id, 202)
        assert (found["level"], found["logger"]) == ("INFO", "masksmith_service.audit")
    else:
        for word in ("request=r-1", f"job={job}", f"key={info.id}", "status=202"):
            assert word in line


def test_no_line_is_broken_by_what_a_request_holds(client, lines):
    client.delete("/v1/jobs/a%0Aforged%20line", headers={"X-Request-Id": "r"})
    assert not [line for line in lines().splitlines() if line.startswith("forged")]


@pytest.mark.parametrize("space", ["%20", "%C2%A0", "%E2%80%A8", "+"])
def test_a_path_forges_no_fields(client, lines, space):
    client.delete(f"/v1/jobs/x{space}key=ops{space}job=forged{space}status=204")
    (line,) = [line for line in lines().splitlines() if "DELETE /v1/jobs/x" in line]
    if "{" not in line:
        fields = [pair.partition("=") for pair in line.split()]
        assert [value for name, _, value in fields if name == "status"] == ["404"]
        assert "key" not in {name for name, _, _ in fields}
    assert "key%3Dops" in line


def test_neither_secrets_nor_tensors_are_logged(app, client, lines, save, records, monkeypatch):
    token = Keys(records.redis).create("ann")[1]
    secret, canary = token[15:], b"CANARY-CANARY-CANARY-CANARY-1234"
    weight = np.frombuffer(canary * 8, np.uint8).reshape(16, 16)
    data = save({"w": weight.astype(np.float32), "x": weight})
    headers = {"Authorization": f"Bearer {token}"}
    client.post("/v1/session", json={"token": token})
    cookie = client.cookies[COOKIE_NAME]
    client.post("/v1/session", data={"token": token[:-1]})
    client.post("/v1/session", content=token.encode(), headers={"Content-Type": "application/json"})
    client.post("/v1/keys", json={"name": token}, headers=headers)
    client.post("/v1/masks", params={"pattern": "2:4"}, content=data, headers=headers)
    client.post("/v1/masks", params={"pattern": "2:4"}, content=data[:-1], headers=headers)
    client.put("/v1/tensors/" + "0" * 64, content=data, headers=headers)
    client.post("/v1/jobs", content=canary, headers=headers)
    monkeypatch.setattr(type(app.state.masksmith.records), "create", lambda *_, **__: 1 / 0)
    client.post("/v1/masks", params={"pattern": "2:4"}, content=data, headers=headers)
    found = lines()
    assert "ZeroDivisionError" in found
    assert found.count("POST /v1/session") == 3
    for hidden in (secret, cookie, "CANARY"):
        assert hidden not in found


@pytest.mark.parametrize("value", ["6.6.6.6", "10.9.9.9 key=ops job=forged status=200"])
def test_a_forwarded_address_counts_only_from_a_named_proxy(client, settings, audited, value):
    client.post("/v1/jobs", json={}, headers={"X-Forwarded-For": value})
    assert audited()[-1][1]["client"] == "testclient"
    assert "forwarded_for" not in audited()[-1][1]
    behind_proxy = create_app(settings.model_copy(update={"trusted_proxies": "10.0.0.1"}))
    for peer, fields in {
        "10.0.0.2": {"client": "10.0.0.2"},
        "10.0.0.1": {"client": "10.0.0.1", "forwarded_for": "6.6.6.6" if value == "6.6.6.6" else "invalid"},
    }.items():
        with TestClient(behind_proxy, client=(peer, 5000)) as other:
            other.post("/v1/jobs", json={}, headers={"X-Forwarded-For": value})
        logged = audited()[-1][1]
        assert {name: logged[name] for name in ("client", "forwarded_for") if name in logged} == fields


def test_downloads_and_deletions_leave_a_line(client, audited, good, put, submit):
    job, digest = submit()["id"], put(good)
    client.post(f"/v1/jobs/{job}/cancel")
    paths = [f"/v1/jobs/{job}/{what}" for what in ("masks", "weights", "pruned", "benchmark", "window", "profile")]
    answers = [(path, client.get(path)) for path in [*paths, "/v1/jobs/nobody/masks"]]
    client.get(f"/v1/jobs/{job}")
    client.delete(f"/v1/jobs/{job}")
    client.delete(f"/v1/tensors/{digest}")
    lines = audited()[-9:]
    assert [(text, fields["status"], fields["bytes"]) for text, fields in lines[:7]] == [
        (f"GET {path}", answer.status_code, len(answer.content)) for path, answer in answers
    ]
    assert [text for text, _ in lines[7:]] == [f"DELETE /v1/jobs/{job}", f"DELETE /v1/tensors/{digest}"]


def test_a_download_says_how_many_bytes_were_sent(client, audited, monkeypatch, submit):
    async def stream(*_):
        yield b"12345"
        raise ConnectionError("cut")

    monkeypatch.setattr("masksmith_service.jobs.results.ResultsFile.check", lambda *_: None)
    monkeypatch.setattr("masksmith_service.jobs.results.ResultsFile.stream", stream)
    job = submit()["id"]
    client.post(f"/v1/jobs/{job}/cancel")
    client.get(f"/v1/jobs/{job}/masks")
    text, fields = audited()[-1]
    assert (text, fields["bytes"]) == (f"GET /v1/jobs/{job}/masks", 5)


def streamed(error: Exception, sent: list) -> None:
    """Send the beginning of a response, through the middleware, and then raise an error that has a handler."""

    async def pieces():
        yield b"beginning"
        raise error

    async def send(message):
        sent.append(message)

    async def receive():
        await asyncio.sleep(60)

    async def handle(request, error):
        raise AssertionError

    handlers = {FileNotFoundError: handle, ZeroDivisionError: handle}
    app = Starlette(routes=[Route("/", lambda request: StreamingResponse(pieces()))], exception_handlers=handlers)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"", "client": None}
    asyncio.run(AccessLogMiddleware(app)(scope, receive, send))


def test_a_result_that_is_deleted_while_it_is_sent_is_logged_without_a_traceback(caplog):
    sent = []
    streamed(FileNotFoundError("results/a"), sent)
    assert sent[-1] == {"type": "http.response.body", "body": b"beginning", "more_body": True}
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings[-1].getMessage().startswith("the response ends early: ")
    assert {(record.levelname, record.exc_info) for record in warnings} == {("WARNING", None)}


def test_a_bug_after_the_response_has_started_is_raised():
    with pytest.raises(RuntimeError) as raised:
        streamed(ZeroDivisionError("bug"), [])
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
