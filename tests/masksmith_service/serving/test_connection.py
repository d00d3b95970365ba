"""Connections, word by word: what is no request is refused, what is one is answered in its turn."""

import json
import time

import numpy as np
import pytest
import safetensors.numpy
from blake3 import blake3

from masksmith_service.serving.connection import LARGE_BYTES, is_bulk, is_short

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def file_of(seed, rows=1024):
    data = safetensors.numpy.save({"w": np.random.default_rng(seed).standard_normal((rows, 512), dtype=np.float32)})
    return data, blake3(data).hexdigest().encode()


def put(digest, length):
    return b"PUT /v1/tensors/%b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (digest, length)


@pytest.mark.parametrize(
    ("headers", "bulk"),
    [
        ([], False),
        ([(b"content-length", b"%d" % LARGE_BYTES)], False),
        ([(b"host", b"x"), (b"content-length", b"%d" % (LARGE_BYTES + 1))], True),
        ([(b"transfer-encoding", b"chunked")], True),
        ([(b"content-length", b"-5")], False),
        ([(b"content-length", b"9" * 5000)], False),
    ],
)
def test_what_is_large_or_may_become_so_is_bulk(headers, bulk):
    assert is_bulk(headers) is bulk
    assert is_short(headers) is not bulk


def test_one_connection_serves_small_and_large_in_turn(speaker):
    one = speaker()
    for seed in range(3):
        data, digest = file_of(seed)
        one.say(HEALTH)
        assert one.hear()[0] == 200
        one.say(put(digest, len(data)), data)
        status, _, body = one.hear()
        assert (status, json.loads(body)["digest"]) == (201, digest.decode())
    one.say(HEALTH)
    assert one.hear()[0] == 200


@pytest.mark.parametrize("cut", [1, 30, 70, 130, 140])
def test_a_head_in_two_pieces_moves_whole(speaker, cut):
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
    missing = b"GET /v1/jobs/nobody HTTP/1.1\r\nHost: localhost\r\n\r\n"
    one = speaker()
    one.say(missing, put(digest, len(data)), data, HEALTH, missing)
    assert [one.hear()[0] for _ in range(4)] == [404, 201, 200, 404]


def test_a_body_of_unknown_size_is_taken(speaker):
    data, digest = file_of(30)
    one = speaker()
    one.say(b"PUT /v1/tensors/%b HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" % digest)
    for at in range(0, len(data), 300_000):
        piece = data[at : at + 300_000]
        one.say(b"%x\r\n" % len(piece), piece, b"\r\n")
    one.say(b"0\r\n\r\n")
    assert one.hear()[0] == 201


def test_a_client_that_waits_to_be_told_is_told(speaker):
    data, digest = file_of(40)
    one = speaker()
    one.say(put(digest, len(data))[:-2], b"Expect: 100-continue\r\n\r\n")
    assert one.hear()[0] == 100
    one.say(data)
    assert one.hear()[0] == 201


def check_refused(one, status, code, word):
    found, headers, body = one.hear()
    problem = json.loads(body)
    assert (found, problem["status"], problem["code"]) == (status, status, code)
    assert headers["content-type"] == "application/problem+json"
    assert word in problem["detail"]
    assert one.hear() is None


def test_what_is_no_http_is_refused(speaker):
    one = speaker()
    one.say(b"EHLO mail.example\r\n\r\n")
    check_refused(one, 400, "malformed_request", "Invalid HTTP")


def test_a_body_that_is_no_body_cuts_an_upload_off(speaker, pair):
    one = speaker()
    one.say(
        b"PUT /v1/tensors/%b HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"
        % (b"0" * 64)
    )
    heard = one.hear()
    assert heard is None or heard[0] == 400
    assert "Traceback" not in pair.seat.log.read_text()


@pytest.mark.parametrize("line", [b"GET /" + b"a" * 70_000, b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 70_000])
def test_a_head_without_end_is_refused(speaker, line):
    one = speaker()
    one.say(line)
    check_refused(one, 431, "request_head_too_large", "max_request_head_bytes = 65536")


def test_a_large_head_that_is_whole_is_none_too_large(speaker):
    one = speaker()
    one.say(HEALTH[:-2], b"X: " + b"a" * 40_000, b"\r\n\r\n")
    assert one.hear()[0] == 200


def test_a_head_that_trickles_in_is_refused(speaker):
    one, begun = speaker(), time.monotonic()
    for word in (b"GET /heal", b"thz HTTP/1.1\r\n", b"Host: local"):
        one.say(word)
        time.sleep(0.3)
    check_refused(one, 408, "request_head_stalled", "request_head_s = 1.5")
    assert 1.4 < time.monotonic() - begun < 10


def test_who_says_nothing_is_let_go(speaker):
    one, begun = speaker(), time.monotonic()
    assert one.hear() is None
    assert 1.4 < time.monotonic() - begun < 10
