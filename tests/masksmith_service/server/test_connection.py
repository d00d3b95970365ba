"""The HTTP connection, byte by byte: invalid requests are rejected, valid ones are answered in order."""

import contextlib
import json
import time

import numpy as np
import pytest
import safetensors.numpy
from blake3 import blake3

from masksmith_service.bounds.request_meter import MAX_FIELDS
from masksmith_service.connection import MAX_PIPELINED

from .conftest import HEAD_S

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
MISSING = b"GET /v1/jobs/nobody HTTP/1.1\r\nHost: localhost\r\n\r\n"
LIMIT = 2**16
ROOM = 8 * 2**20
"""More than the buffers of both ends of a connection hold."""


def file_of(seed, rows=1024):
    data = safetensors.numpy.save({"w": np.random.default_rng(seed).standard_normal((rows, 512), dtype=np.float32)})
    return data, blake3(data).hexdigest().encode()


def put(digest, length):
    return b"PUT /v1/tensors/%b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (digest, length)


def chunked(method, path, *fields):
    head = [method + b" " + path + b" HTTP/1.1", b"Host: localhost", b"Transfer-Encoding: chunked", *fields]
    return b"\r\n".join([*head, b"", b""])


def chunks(data, size, extension=b""):
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)


def test_one_connection_serves_small_and_large_in_turn(speaker):
    one = speaker()
    for seed in range(3):
        data, digest = file_of(seed)
        one.say(HEALTH)
        assert one.hear()[0] == 200
        one.say(put(digest, len(data)), data)
        status, headers, body = one.hear()
        assert (status, json.loads(body)["digest"]) == (201, digest.decode())
        assert "connection" not in headers
    one.say(HEALTH)
    assert one.hear()[0] == 200


@pytest.mark.parametrize("cut", [1, 30, 70, 130, 140])
def test_a_head_may_come_in_two_pieces(speaker, cut):
    data, digest = file_of(100 + cut)
    head, one = put(digest, len(data)), speaker()
    assert cut < len(head) + 10
    one.say((head + data)[:cut])
    time.sleep(0.1)
    one.say((head + data)[cut:])
    assert one.hear()[0] == 201
    one.say(HEALTH)
    assert one.hear()[0] == 200


def test_requests_that_come_at_once_are_answered_in_order(speaker):
    data, digest = file_of(20)
    one = speaker()
    one.say(MISSING, put(digest, len(data)), data, HEALTH, MISSING)
    assert [one.hear()[0] for _ in range(4)] == [404, 201, 200, 404]


def test_requests_that_wait_are_counted(speaker):
    one = speaker()
    one.say(HEALTH * MAX_PIPELINED)
    assert [one.hear()[0] for _ in range(MAX_PIPELINED)] == [200] * MAX_PIPELINED
    one.say(HEALTH * (MAX_PIPELINED + 2))
    assert one.is_closed()


def test_the_answer_is_not_lost_to_half_a_request_behind(hurried_speaker):
    data, _ = file_of(21, rows=8)
    head = b"POST /v1/masks?pattern=2:4 HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=%d\r\n" % (HEAD_S + 1)
    one = hurried_speaker()
    # The second request stops the reading; the third is half here, for longer than a head may take.
    one.say(head, b"Content-Length: %d\r\n\r\n" % len(data), data, HEALTH, HEALTH[:20])
    status, _, body = one.hear()
    assert (status, json.loads(body)["state"]) == (202, "queued")
    assert one.hear()[0] == 200
    one.say(HEALTH[20:])
    assert one.hear()[0] == 200


@pytest.mark.parametrize("size", [300_000, 1])
def test_a_body_of_unknown_size_is_taken(speaker, size):
    data, digest = file_of(30 + size % 7, rows=1024 if size > 1 else 16)
    one = speaker()
    one.say(chunked(b"PUT", b"/v1/tensors/" + digest), chunks(data, size), b"0\r\n\r\n", HEALTH)
    assert [one.hear()[0], one.hear()[0]] == [201, 200]


def test_a_client_that_sends_expect_100_continue_gets_it(speaker):
    data, digest = file_of(40)
    one = speaker()
    one.say(put(digest, len(data))[:-2], b"Expect: 100-continue\r\n\r\n")
    assert one.hear()[0] == 100
    one.say(data)
    assert one.hear()[0] == 201


def test_a_rejected_client_that_sends_expect_100_continue_is_answered_at_once(speaker):
    one = speaker()
    one.say(put(b"no-digest", 10**9)[:-2], b"Expect: 100-continue\r\n\r\n")
    one.check_refused(400, "invalid_digest", "64 lower-case")


def test_data_that_is_not_http_is_rejected(speaker):
    one = speaker()
    one.say(b"EHLO mail.example\r\n\r\n")
    one.check_refused(400, "malformed_request", "Invalid HTTP")


def test_data_that_is_not_http_does_not_disturb_an_earlier_response(speaker):
    one = speaker()
    one.say(MISSING, b"EHLO mail.example\r\n\r\n")
    answer = one.hear()
    assert answer is None or answer[0] == 404
    assert one.is_closed()


def test_an_invalid_chunk_aborts_an_upload(speaker):
    one = speaker()
    one.say(chunked(b"PUT", b"/v1/tensors/" + b"0" * 64), b"nonsense\r\n")
    one.check_refused(400, "malformed_request", "Invalid HTTP")


@pytest.mark.parametrize("line", [b"GET /" + b"a" * 70_000, b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 70_000])
def test_a_head_without_end_is_refused(speaker, line):
    one = speaker()
    one.say(line)
    one.check_refused(431, "request_head_too_large", "max_request_head_bytes = 65536")


def test_a_head_that_is_too_large_is_refused_also_when_it_is_whole(speaker):
    one = speaker()
    one.say(HEALTH[:-2], b"X: " + b"a" * 70_000, b"\r\n\r\n")
    one.check_refused(431, "request_head_too_large", "line and headers are larger")


def test_a_head_within_the_limits_is_taken(speaker):
    one = speaker()
    one.say(HEALTH[:-2], b"X: " + b"a" * 40_000, b"\r\n" + b"y: \r\n" * (MAX_FIELDS - 2), b"\r\n")
    assert one.hear()[0] == 200


def test_a_head_of_many_fields_is_refused(speaker):
    one = speaker()
    one.say(HEALTH[:-2], b"y: \r\n" * MAX_FIELDS, b"\r\n")
    one.check_refused(431, "request_head_too_large", f"more than {MAX_FIELDS} fields")


def test_a_head_that_trickles_in_is_refused(hurried_speaker):
    began, one = time.monotonic(), hurried_speaker()
    for word in (b"GET /heal", b"thz HTTP/1.1\r\n", b"Host: local"):
        one.say(word)
        time.sleep(0.3)
    one.check_refused(408, "request_head_stalled", f"request_head_s = {HEAD_S:g}")
    assert time.monotonic() - began > HEAD_S - 0.1


def test_a_silent_client_is_disconnected(hurried_speaker):
    began, one = time.monotonic(), hurried_speaker()
    assert one.is_closed()
    assert time.monotonic() - began > HEAD_S - 0.1


@pytest.mark.parametrize("path", [b"/v1/tensors/" + b"0" * 64, b"/v1/jobs"])
@pytest.mark.parametrize(
    "block",
    [b"".join(b"X%06d: y\r\n" % number for number in range(20_000)), b"X: " + b"y" * 2**20],
    ids=["many trailers", "a long trailer"],
)
def test_trailers_without_end_are_refused(speaker, path, block):
    one = speaker()
    one.say(chunked(b"PUT" if b"tensors" in path else b"POST", path), b"1\r\nx\r\n0\r\n")
    assert one.flood(block, ROOM) < ROOM


@pytest.mark.parametrize(
    ("trailers", "word"),
    [(b"X: y\r\n" * (MAX_FIELDS + 1), "more than 128 fields"), (b"X: " + b"y" * LIMIT, "trailers and chunk framing")],
    ids=["many", "long"],
)
def test_trailers_beyond_the_limits_are_refused(speaker, trailers, word):
    one = speaker()
    one.say(chunked(b"PUT", b"/v1/tensors/" + b"0" * 64), b"1\r\nx\r\n0\r\n", trailers, b"\r\n\r\n")
    one.check_refused(431, "request_head_too_large", word)


@pytest.mark.parametrize("extension", [b";a=" + b"b" * 200_000, b";" + b"a=b;" * 50_000])
def test_chunk_extensions_without_end_are_refused(speaker, extension):
    one = speaker()
    one.say(chunked(b"PUT", b"/v1/tensors/" + b"0" * 64), b"1", extension)
    one.check_refused(431, "request_head_too_large", "trailers and chunk framing")


def test_chunk_extensions_that_outweigh_the_body_are_refused(speaker):
    one = speaker()
    one.say(chunked(b"PUT", b"/v1/tensors/" + b"0" * 64), b"9\r\n" + b"\x10" + bytes(7) + b"{\r\n")
    assert one.flood(b"1;a=" + b"b" * 500 + b"\r\nx\r\n", ROOM) < ROOM


def test_small_chunk_extensions_are_taken(speaker):
    data, digest = file_of(50)
    one = speaker()
    one.say(chunked(b"PUT", b"/v1/tensors/" + digest), chunks(data, 1000, b";signature=" + b"0" * 64), b"0\r\n\r\n")
    assert one.hear()[0] == 201


@pytest.mark.parametrize(
    "field",
    [b"Host: evil.example", b"Authorization: Bearer nobody", b"Cookie: masksmith=x", b"X-Forwarded-For: 6.6.6.6",
     b"X-Request-Id: from-a-trailer", b"Accept: text/html", b"Origin: http://evil.example"],
)  # fmt: skip
def test_trailers_are_no_headers(speaker, fleet, field):
    data, digest = file_of(60)
    one = speaker()
    one.say(chunked(b"PUT", b"/v1/tensors/" + digest), chunks(data, len(data)), b"0\r\n", field, b"\r\n\r\n", MISSING)
    status, headers, _ = one.hear()
    assert status in (200, 201)
    assert headers["x-request-id"] != "from-a-trailer"
    status, headers, _ = one.hear()
    assert (status, headers["content-type"]) == (404, "application/problem+json")
    assert "6.6.6.6" not in fleet.services[0].log.read_text()


@pytest.mark.parametrize("field", [b"Content-Length: 7", b"Transfer-Encoding: gzip"])
def test_trailers_that_would_part_messages_are_refused(speaker, field):
    one = speaker()
    one.say(chunked(b"PUT", b"/v1/tensors/" + b"0" * 64), b"1\r\nx\r\n0\r\n", field, b"\r\n\r\n")
    one.check_refused(400, "malformed_request", "Invalid HTTP")


def test_an_unsupported_upgrade_bounds_the_bytes_that_follow(speaker):
    one = speaker()
    one.say(HEALTH[:-2], b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert one.hear()[0] == 200
    assert one.flood(bytes(2**16), ROOM) < ROOM


@pytest.mark.parametrize(
    "request_line",
    [b"PRI * HTTP/2.0", b"CONNECT localhost:80 HTTP/1.1", b"GET http://[ HTTP/1.1", b"GET /%ff HTTP/9.9"],
)
def test_an_invalid_request_line_is_rejected(speaker, request_line):
    one = speaker()
    one.say(request_line, b"\r\nHost: localhost\r\n\r\n")
    assert one.hear()[0] in (400, 405)
    assert one.flood(bytes(2**16), ROOM) < ROOM


@pytest.mark.parametrize("fields", [b"", b"Host: localhost\r\nHost: evil.example\r\n", b"Host: a\r\nHost: a\r\n"])
@pytest.mark.parametrize("path", [b"/healthz", b"/v1/jobs"])
def test_a_request_has_one_host(speaker, path, fields):
    one = speaker()
    one.say(b"GET ", path, b" HTTP/1.1\r\n", fields, b"\r\n")
    status, _, body = one.hear()
    assert (status, json.loads(body)["code"]) == (400, "malformed_request")


UPGRADES = {
    "h2c": (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"),
    "websocket": (
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Key: AAAA",
        b"Sec-WebSocket-Version: 13",
    ),
}


@pytest.mark.parametrize("upgrade", UPGRADES)
@pytest.mark.parametrize("framing", [b"Content-Length: %d" % len(HEALTH), b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("pause_s", [0.0, 0.2])
def test_the_body_of_a_request_for_an_upgrade_is_no_request(speaker, upgrade, framing, pause_s):
    one = speaker()
    one.say(b"\r\n".join([b"POST /v1/tensors HTTP/1.1", b"Host: localhost", *UPGRADES[upgrade], framing, b"", b""]))
    time.sleep(pause_s)
    with contextlib.suppress(OSError):
        one.say(HEALTH, HEALTH)
    one.check_refused(400, "malformed_request", "Upgrade")


@pytest.mark.parametrize("upgrade", UPGRADES)
def test_a_request_for_an_upgrade_is_the_last_of_its_connection(speaker, upgrade):
    one = speaker()
    one.say(b"\r\n".join([b"GET /healthz HTTP/1.1", b"Host: localhost", *UPGRADES[upgrade], b"", b""]), HEALTH)
    status, headers, _ = one.hear()
    assert (status, headers["connection"]) == (200, "close")
    assert one.is_closed()


def test_requests_that_are_no_http_or_ask_for_an_upgrade_leave_no_line_in_the_log(speaker, fleet):
    log = fleet.services[0].log
    before = len(log.read_text())
    for fields in UPGRADES.values():
        one = speaker()
        one.say(b"\r\n".join([b"GET /healthz HTTP/1.1", b"Host: localhost", *fields, b"", b""]))
        assert one.hear()[0] == 200
    one = speaker()
    one.say(b"no HTTP\r\n\r\n")
    one.check_refused(400, "malformed_request", "Invalid HTTP")
    assert "uvicorn" not in log.read_text()[before:]
