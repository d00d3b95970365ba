"""Requests that mean harm, to a real service: each is refused with a problem document."""

import gzip
import json
import random
import socket
import zlib

import pytest
from blake3 import blake3
from support.forgery import Forger

COUNTS = [pytest.param(300, id="300"), pytest.param(5_000, id="5000", marks=pytest.mark.slow)]
TRICKS = ["../x", "..%2f..%2fx", "%2e%2e/%2e%2e/etc/passwd", "....//x", "/etc/passwd", "a%00b", "%ff%fe", "a" * 4000,
          "%c0%ae%c0%ae", "..;/x", "%0d%0aX-Evil:%201", "~root", "con", "?", "#", "%", "%zz"]  # fmt: skip


def check_refused(answer, *statuses):
    assert answer.status_code in statuses, (answer.status_code, answer.text[:300])
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["code"] != "internal"


@pytest.mark.parametrize("count", COUNTS)
def test_forged_files(target, count):
    forger = Forger(random.Random(count))
    for number in range(count):
        data, sound = forger.file()
        stored = target.http.put(f"/v1/tensors/{blake3(data).hexdigest()}", content=data)
        if stored.status_code not in (200, 201):
            assert not sound
            check_refused(stored, 400, 413)
        # Nothing is selected, so that no job is made of what is sound.
        check_refused(target.http.post("/v1/masks?pattern=2:4&exclude=*", content=data), 400, 413, 422)
        if number == count // 10:
            before = target.resident_mib
    assert target.resident_mib - before < 32


@pytest.mark.parametrize("trick", TRICKS)
def test_paths_that_lead_elsewhere(target, trick):
    files = sorted(target.fleet.folder.rglob("*"))
    for method, path in [("PUT", "/v1/tensors/"), ("GET", "/v1/jobs/"), ("DELETE", "/v1/jobs/"), ("GET", "/static/"),
                         ("DELETE", "/v1/keys/")]:  # fmt: skip
        answer = raw(
            target, f"{method} {path}{trick} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n".encode()
        )
        assert answer.split()[1] in {b"400", b"403", b"404", b"405", b"422", b"307", b"200"}, answer[:200]
        assert b"root:x:" not in answer
        assert b"x-evil" not in answer.lower().partition(b"\r\n\r\n")[0]
    assert sorted(target.fleet.folder.rglob("*")) == files


def raw(target, request):
    """Send bytes as they are; gives the answer until the connection closes or rests."""
    with socket.create_connection(target.address, timeout=120) as connection:
        connection.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "..\\evil", "a\u202eb", "CON", "$(touch evil)"])
def test_tensor_names_are_only_names(target, name):
    before = set(target.fleet.folder.rglob("*evil*"))
    entry = {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}
    text = json.dumps({name: entry}).encode()
    answer = target.http.post("/v1/masks?pattern=2:4", content=len(text).to_bytes(8, "little") + text + bytes(64))
    assert answer.status_code == 202
    assert [tensor["name"] for tensor in answer.json()["tensors"]] == [name]
    assert target.http.delete(answer.headers["location"]).status_code == 204
    assert set(target.fleet.folder.rglob("*evil*")) == before


def bomb(mebibytes):
    """Zeros, packed a thousand to one."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(mebibytes)) + packer.flush()


BOMB = bomb(64)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "gzip, gzip", "compress", "zstd", "identity, gzip"])
def test_compressed_bodies_are_never_unpacked(target, coding):
    headers = {"Content-Encoding": coding}
    digest = blake3(BOMB).hexdigest()
    check_refused(target.http.put(f"/v1/tensors/{digest}", content=BOMB, headers=headers), 400, 415)
    check_refused(target.http.post("/v1/masks?pattern=2:4", content=BOMB, headers=headers), 400, 415)
    document = gzip.compress(b'{"pattern": "2:4", "tensors": []}')
    kind = {"Content-Type": "application/json"}
    check_refused(target.http.post("/v1/jobs", content=document, headers=headers | kind), 400, 415, 422)


MEMBERS = b",".join(b'"%d":1' % number for number in range(200_000))
DOCUMENTS = {
    "deep list": b"[" * 100_000 + b"]" * 100_000,
    "deep map": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep in tensors": b'{"pattern":"2:4","tensors":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "many tensors": b'{"pattern":"2:4","tensors":[' + b",".join([b"{}"] * 500_000) + b"]}",
    "many members": b"{" + MEMBERS + b"}",
    "many members of one": b'{"pattern":"2:4","tensors":[{' + MEMBERS + b"}]}",
    "many wrong dtypes": b'{"kind":"benchmark","dtypes":[' + b",".join([b"1"] * 500_000) + b"]}",
    "long number": b'{"pattern":"2:4","time_limit_s":' + b"9" * 1_000_000 + b',"tensors":[]}',
    "long string": b'{"pattern":"' + b"2" * 20_000_000 + b'","tensors":[]}',
    "long pattern": b'{"pattern":"' + b"transposable " * 8 + b'","tensors":[]}',
    "equal members": b'{"pattern":"2:4",' + b'"pattern":"2:4",' * 100_000 + b'"tensors":[]}',
    "beyond the limit": b'{"pattern":"2:4","tensors":[' + b" " * 40_000_000 + b"]}",
    "bad surrogates": b'{"pattern":"\\ud800\\ud800","tensors":[]}',
    "a pickle": b"\x80\x04cos\nsystem\n(S'touch evil'\ntR.",
}  # fmt: skip


@pytest.mark.parametrize("content", DOCUMENTS.values(), ids=DOCUMENTS)
def test_documents_that_are_deep_or_huge(target, content):
    resident = []
    for path in ("/v1/jobs", "/v1/keys", "/v1/session", "/v1/jobs", "/v1/jobs"):
        answer = target.http.post(path, content=content, headers={"Content-Type": "application/json"})
        check_refused(answer, 400, 401, 403, 413, 422)
        resident.append(target.resident_mib)
    # What one document took is there for the next.
    assert resident[-1] - max(resident[:3]) < 96


def test_uploads_that_never_end_keep_nobody_waiting(target):
    """Slow-loris: a hundred connections that send a byte now and then."""
    head = b"PUT /v1/tensors/" + b"0" * 64 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000000\r\n\r\n"
    partial = [head, head[:40], b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{"]
    lorises = [socket.create_connection(target.address, timeout=120) for _ in range(100)]
    try:
        for number, connection in enumerate(lorises):
            connection.sendall(partial[number % len(partial)])
        for _ in range(5):
            for number, connection in enumerate(lorises):
                connection.sendall(b"\x10" if number % 3 == 0 else b"x")
            target.check_answers()
    finally:
        for connection in lorises:
            connection.close()
    target.await_no_leftovers()
