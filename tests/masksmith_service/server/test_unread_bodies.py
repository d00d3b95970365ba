"""Bodies that are not read: the response is sent, then the connection is closed, whatever the client sends."""

import json
import socket

import httpx2
import pytest
from support.processes import poll

from masksmith_service.middleware.unread_bodies import DRAIN_BYTES

LENGTH = b"Content-Length: %d" % 2**40
CHUNKED = b"Transfer-Encoding: chunked"
WRONG = b"/v1/tensors/not-a-digest"


def head(method, path, *fields):
    return b"\r\n".join([method + b" " + path + b" HTTP/1.1", b"Host: localhost", *fields, b"", b""])


REFUSED = [
    pytest.param(b"PUT", WRONG, LENGTH, 400, id="an upload without a digest"),
    pytest.param(b"PUT", b"/v1/tensors/" + b"0" * 64, LENGTH, 413, id="an upload that is too large"),
    pytest.param(b"POST", b"/v1/jobs", LENGTH, 413, id="a document that is too large"),
    pytest.param(b"POST", b"/v1/masks?pattern=none", CHUNKED, 422, id="an upload for a bad pattern"),
    pytest.param(b"POST", b"/nowhere", LENGTH, 413, id="no such address"),
    pytest.param(b"PUT", b"/v1/tensors/nowhere/else", CHUNKED, 404, id="no such upload"),
    pytest.param(b"GET", b"/v1/jobs/nobody", LENGTH, 404, id="a GET"),
    pytest.param(b"GET", b"/healthz", CHUNKED, 200, id="a GET that is answered"),
    pytest.param(b"PUT", b"/v1/tensors/" + b"0" * 64, b"Origin: http://evil.example\r\n" + LENGTH, 403, id="an origin"),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), REFUSED)
def test_a_refused_connection_does_not_stay(speaker, method, path, body, status):
    one = speaker()
    one.say(head(method, path, body))
    received, headers, _ = one.hear()
    assert (received, headers["connection"]) == (status, "close")
    # A byte now and then keeps no connection.
    poll(lambda: one.flood(b"1\r\nx\r\n" if body == CHUNKED else b"x", 1) == 0)


def test_an_endless_body_is_cut_off(speaker):
    one = speaker()
    one.say(head(b"PUT", WRONG, LENGTH))
    assert one.flood(bytes(2**16), 32 * DRAIN_BYTES) < 32 * DRAIN_BYTES
    assert one.hear()[0] == 400
    assert one.is_closed()


def test_the_answer_arrives_though_the_body_was_sent_first(speaker):
    one = speaker()
    one.say(head(b"PUT", WRONG, b"Content-Length: %d" % DRAIN_BYTES), bytes(DRAIN_BYTES))
    status, headers, body = one.hear()
    assert (status, headers["connection"], json.loads(body)["code"]) == (400, "close", "invalid_digest")
    assert one.is_closed()


def test_requests_behind_an_unread_body_are_not_served(speaker, fleet):
    one, lines = speaker(), fleet.services[0].log.read_text().count("DELETE /v1/jobs/behind")
    behind = head(b"DELETE", b"/v1/jobs/behind")
    one.say(head(b"PUT", WRONG, b"Content-Length: 3"), b"abc", behind, behind)
    assert one.hear()[0] == 400
    assert one.is_closed()
    assert fleet.services[0].log.read_text().count("DELETE /v1/jobs/behind") == lines


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_reading_without_a_body_keeps_the_connection(speaker, method):
    one = speaker()
    for fields in ([], [b"Content-Length: 0"]):
        one.say(head(method, b"/healthz", *fields))
        status, headers, _ = one.hear() if method == b"GET" else one.hear_head()
        assert "connection" not in headers
        assert status in (200, 405)


def test_head_with_a_body_ends_the_connection(speaker):
    one = speaker()
    one.say(head(b"HEAD", b"/v1/tensors/" + b"0" * 64, b"Content-Length: 5"), b"hello", head(b"GET", b"/healthz"))
    status, headers, _ = one.hear_head()
    assert (status, headers["connection"]) == (404, "close")
    assert one.is_closed()


def test_a_body_that_is_read_keeps_the_connection(speaker):
    one = speaker()
    for _ in range(2):
        one.say(head(b"POST", b"/v1/jobs", b"Content-Type: application/json", b"Content-Length: 2"), b"{}")
        status, headers, _ = one.hear()
        assert status == 422
        assert "connection" not in headers


def test_connections_of_clients_that_disconnect_early_are_released(speaker, fleet):
    for _ in range(20):
        one = speaker()
        one.say(head(b"PUT", WRONG, LENGTH))
        one.close()
    port = int(fleet.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as last:
        last.sendall(head(b"GET", b"/healthz", b"Connection: close"))
        assert last.recv(16).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("pieces", [False, True], ids=["of known size", "chunked"])
def test_clients_that_send_all_of_a_large_body_first_get_the_answer(fleet, pieces):
    body = bytes(64 * DRAIN_BYTES)
    for _ in range(5):
        content = (body[at : at + 2**20] for at in range(0, len(body), 2**20)) if pieces else body
        answer = httpx2.put(f"{fleet.url}{WRONG.decode()}", content=content, timeout=60)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_digest")
