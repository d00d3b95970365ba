"""Bodies that are not read: the response is sent, then the connection is closed, whatever the client sends."""

import contextlib
import json
import socket

import httpx2
import pytest
from support.processes import poll

from masksmith_service.middleware.unread_bodies import DRAIN_BYTES

from .conftest import speaking

LENGTH = b"Content-Length: %d" % 2**40
CHUNKED = b"Transfer-Encoding: chunked"
WRONG = b"/v1/tensors/not-a-digest"


def head(method, path, *fields):
    return b"\r\n".join([method + b" " + path + b" HTTP/1.1", b"Host: localhost", *fields, b"", b""])


REFUSED = {
    "an upload without a digest": (b"PUT", WRONG, LENGTH, 400),
    "an upload that is too large": (b"PUT", b"/v1/tensors/" + b"0" * 64, LENGTH, 413),
    "a document that is too large": (b"POST", b"/v1/jobs", LENGTH, 413),
    "an upload for a bad pattern": (b"POST", b"/v1/masks?pattern=none", CHUNKED, 422),
    "no such address": (b"POST", b"/nowhere", LENGTH, 413),
    "no such upload": (b"PUT", b"/v1/tensors/nowhere/else", CHUNKED, 404),
    "a GET": (b"GET", b"/v1/jobs/nobody", LENGTH, 404),
    "a GET that is answered": (b"GET", b"/healthz", CHUNKED, 200),
    "an origin": (b"PUT", b"/v1/tensors/" + b"0" * 64, b"Origin: http://evil.example\r\n" + LENGTH, 403),
}


@pytest.fixture(scope="module")
def refused(fleet_of):
    """Send all requests of `REFUSED`, read the responses, then send single bytes until the connections are closed.

    Return each case's response and whether its connection was closed. The service waits for all rests together.
    """
    with speaking(fleet_of(1)) as speaker:
        speakers = {case: speaker() for case in REFUSED}
        for case, (method, path, body, _) in REFUSED.items():
            speakers[case].say(head(method, path, body))
        answers = {case: speakers[case].hear() for case in REFUSED}
        still_open = set(REFUSED)

        def all_closed():
            for case in [*still_open]:
                # A byte now and then keeps no connection.
                if speakers[case].flood(b"1\r\nx\r\n" if REFUSED[case][2] == CHUNKED else b"x", 1) == 0:
                    still_open.remove(case)
            return not still_open

        with contextlib.suppress(AssertionError):
            poll(all_closed)
        return {case: (answers[case], case not in still_open) for case in REFUSED}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_connection_does_not_stay(refused, case):
    (status, headers, _), is_closed = refused[case]
    assert (status, headers["connection"]) == (REFUSED[case][-1], "close")
    assert is_closed


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
