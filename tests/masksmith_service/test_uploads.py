import asyncio
import json
import shutil
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from starlette.testclient import TestClient

from masksmith_service.app import create_app
from masksmith_state.keys import Keys, Role


def file_of(text: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F32", shape=(4, 4), end=64):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [0, end]}


ENTRY = json.dumps(entry()).encode()
MALFORMED = {
    "empty": (b"", "invalid_safetensors", ["0 byte"]),
    "not safetensors": (b"PK\x03\x04" + bytes(500), "invalid_safetensors", ["not a safetensors file"]),
    "text": (b"hello, this is no file of tensors", "invalid_safetensors", ["not a safetensors file"]),
    "cut in the header": (file_of(b'{"a":' + ENTRY + b"}")[:40], "invalid_safetensors", ["truncated", "40 bytes"]),
    "cut in the data": (file_of(b'{"a":' + ENTRY + b"}", bytes(63)), "invalid_safetensors", ["truncated"]),
    "length lying": (struct.pack("<Q", 2**40) + b"{}", "invalid_safetensors", ["claims 1099511627776 bytes"]),
    "length too short": (struct.pack("<Q", 9) + b'{"a":' + ENTRY + b"}" + bytes(64), "invalid_safetensors",
                         ["is not JSON"]),
    "trailing bytes": (file_of(b'{"a":' + ENTRY + b"}", bytes(65)), "invalid_safetensors", ["belong to no tensor"]),
    "duplicate names": (file_of(b'{"a":' + ENTRY + b',"a":' + ENTRY + b"}", bytes(64)), "invalid_safetensors",
                        ["'a' twice"]),
    "half a surrogate pair": (file_of(b'{"\\ud800":' + ENTRY + b"}", bytes(64)), "invalid_safetensors", ["ud800"]),
    "unknown dtype": (file_of(json.dumps({"a": entry("F128")}).encode(), bytes(64)), "unknown_dtype",
                      ["'a'", "'F128'"]),
}  # fmt: skip


@pytest.mark.parametrize("how", ["put", "post"])
@pytest.mark.parametrize(("data", "code", "words"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_files_are_refused_and_leave_nothing(client, check_problem, on_disk, how, data, code, words):
    if how == "put":
        response = client.put(f"/v1/tensors/{blake3(data).hexdigest()}", content=data)
    else:
        response = client.post("/v1/masks", params={"pattern": "2:4"}, content=data)
    assert on_disk.files() == []
    check_problem(response, 400, code, *words)


def test_an_upload_exists_once_it_is_complete(client, good, on_disk):
    digest = blake3(good).hexdigest()
    assert client.head(f"/v1/tensors/{digest}").status_code == 404
    first = client.put(f"/v1/tensors/{digest}", content=good)
    assert first.status_code == 201
    assert first.json() == {"digest": digest, "bytes": len(good), "tensors": ["layer.bias", "layer.weight"]}
    head = client.head(f"/v1/tensors/{digest}")
    assert (head.status_code, head.headers["x-upload-bytes"], head.content) == (200, str(len(good)), b"")
    assert client.put(f"/v1/tensors/{digest}", content=good).status_code == 200
    assert on_disk.files() == [f"tensors/{digest[:2]}/{digest}"]
    on_disk.check_whole()


def test_content_type_does_not_matter(client, good):
    for kind in ("application/json", "multipart/form-data", "text/plain; charset=x"):
        response = client.post("/v1/masks", params={"pattern": "2:4"}, content=good, headers={"Content-Type": kind})
        assert response.status_code == 202, response.text


@pytest.mark.parametrize("known", [True, False])
def test_a_digest_that_does_not_match_is_refused(client, put, save, check_problem, on_disk, known):
    good, other = save({"a": np.zeros((4, 4))}), save({"b": np.ones((4, 4))})
    digest = blake3(good).hexdigest()
    if known:
        put(good)
    response = client.put(f"/v1/tensors/{digest}", content=other)
    assert len(on_disk.files()) == known
    check_problem(response, 400, "digest_mismatch", digest, blake3(other).hexdigest())


@pytest.mark.parametrize("digest", ["abc", "G" * 64, "0" * 63, "A" * 64, "0" * 64 + "0"])
@pytest.mark.parametrize("method", ["put", "head"])
def test_a_malformed_digest_is_refused(client, good, check_problem, method, digest):
    if method == "put":
        check_problem(client.put(f"/v1/tensors/{digest}", content=good), 400, "invalid_digest", digest)
    else:
        assert client.head(f"/v1/tensors/{digest}").status_code == 400


@pytest.mark.parametrize("path", ["/v1/masks?pattern=2:4", "/v1/tensors/" + "0" * 64])
@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_beyond_the_limit_is_refused(client, save, check_problem, on_disk, path, chunked):
    data = save({"a": np.zeros(30_000, np.float32)})
    pieces = (data[start : start + 10_000] for start in range(0, len(data), 10_000))
    response = client.request("PUT" if "tensors" in path else "POST", path, content=pieces if chunked else data)
    assert on_disk.files() == []
    problem = check_problem(response, 413, "body_too_large", "100000")
    assert problem["limit"] == 100_000


@pytest.mark.parametrize("cut", [0, 1, 400_000])
def test_a_large_header_is_read_like_any_other(settings, save, on_disk, cut):
    data = save({"a": np.eye(4, dtype=np.float32)}, {"notes": "x" * 500_000})
    roomy = settings.model_copy(update={"max_body_bytes": 10**6})
    with TestClient(create_app(roomy)) as client:
        response = client.post("/v1/masks", params={"pattern": "2:4"}, content=data[: len(data) - cut])
    assert response.status_code == (400 if cut else 202), response.text
    assert len(on_disk.files()) == (not cut)


def test_a_header_beyond_its_limit_is_refused_before_it_has_arrived(settings, save):
    data = save({"a": np.eye(4, dtype=np.float32)}, {"notes": "x" * 5000})
    with TestClient(create_app(settings.model_copy(update={"max_header_bytes": 1000}))) as client:
        response = client.post("/v1/masks", params={"pattern": "2:4"}, content=data[:100])
    assert (response.status_code, response.json()["code"]) == (413, "header_too_large")
    assert "max_header_bytes is 1000" in response.json()["detail"]


def test_a_tensor_of_too_many_entries_is_named(settings, save, on_disk):
    data = save({"small": np.eye(4, dtype=np.float32), "large": np.zeros((5, 5), np.float32)})
    with TestClient(create_app(settings.model_copy(update={"max_elements": 16}))) as client:
        response = client.post("/v1/masks", params={"pattern": "2:4"}, content=data)
    assert (response.status_code, response.json()["code"], response.json()["limit"]) == (413, "too_many_elements", 16)
    assert "'large' has 25 entries, max_elements is 16" in response.json()["detail"]
    assert on_disk.files() == []


def test_too_many_shards_are_refused(settings, save):
    narrow = settings.model_copy(update={"shard_bytes": 16, "max_shards": 5})
    with TestClient(create_app(narrow)) as client:
        fits, more = (save({"a": np.zeros((rows, 4), np.float32)}) for rows in (5, 6))
        assert client.post("/v1/masks", params={"pattern": "2:4"}, content=fits).status_code == 202
        response = client.post("/v1/masks", params={"pattern": "2:4"}, content=more)
        assert (response.status_code, response.json()["code"]) == (413, "too_many_shards")
        assert "max_shards = 5" in response.json()["detail"]
        assert len(client.get("/v1/jobs").json()["jobs"]) == 1


@pytest.mark.parametrize("how", ["whole", "chunked"])
def test_a_disk_with_less_than_min_free_bytes_takes_no_uploads(settings, save, on_disk, how):
    data = save({"a": np.zeros((100, 100), np.float32)})
    free = shutil.disk_usage(Path(settings.store_url).parent).free
    with TestClient(create_app(settings.model_copy(update={"min_free_bytes": 2 * free}))) as client:
        content = data if how == "whole" else iter([data])
        response = client.put(f"/v1/tensors/{blake3(data).hexdigest()}", content=content)
        assert (response.status_code, response.json()["code"]) == (507, "disk_full")
        assert f"min_free_bytes = {2 * free}" in response.json()["detail"]
        assert response.headers["retry-after"] == "30"
        assert on_disk.files() == []
        assert client.get("/v1/jobs").status_code == 200


def test_a_full_disk_tells_no_key_what_others_have_sent(settings, records, save):
    data = save({"a": np.zeros((100, 100), np.float32)})
    address = f"/v1/tensors/{blake3(data).hexdigest()}"
    bob, ann = (
        {"Authorization": f"Bearer {Keys(records.redis).create(name, Role.USER)[1]}"} for name in ("bob", "ann")
    )
    with TestClient(create_app(settings)) as client:
        assert client.put(address, content=data, headers=bob).status_code == 201
    full = settings.model_copy(update={"min_free_bytes": 2 * shutil.disk_usage(Path(settings.store_url)).total})
    with TestClient(create_app(full)) as client:
        other = save({"b": np.ones((100, 100), np.float32)})
        other_address = f"/v1/tensors/{blake3(other).hexdigest()}"
        cases = ((address, data, bob, 200), (address, data, ann, 507), (other_address, other, ann, 507))
        for path, body, headers, status in cases:
            # Uploads that announce a small length are received in another way than those that announce none.
            for content in (body, iter([body])):
                assert client.put(path, content=content, headers=headers).status_code == status, (path, headers)


def test_a_disk_that_fills_while_a_body_comes_is_seen(settings, save, on_disk, monkeypatch):
    monkeypatch.setattr("masksmith_service.uploads.inspector.DISK_CHECK_BYTES", 2**16)
    looks = iter([10**12])
    monkeypatch.setattr("masksmith_state.blobs.store.BlobStore.free_bytes", lambda _: next(looks, 0))
    data = save({"a": np.zeros(10**6, np.float32)})
    pieces = (data[k : k + 2**15] for k in range(0, len(data), 2**15))
    with TestClient(create_app(settings.model_copy(update={"max_body_bytes": 10**8}))) as client:
        response = client.post("/v1/masks", params={"pattern": "2:4"}, content=pieces)
    assert (response.status_code, response.json()["code"]) == (507, "disk_full")
    assert on_disk.files() == []


@pytest.mark.parametrize(
    ("path", "method"), [("/v1/masks", "POST"), ("/v1/tensors/" + "0" * 64, "PUT"), ("/v1/jobs", "POST")]
)
@pytest.mark.parametrize("drip", [0, 1])
def test_a_stalled_or_slow_body_is_rejected(settings, save, on_disk, path, method, drip):
    app = create_app(settings.model_copy(update={"upload_stall_s": 0.4}))
    data = save({"a": np.zeros(10_000, np.float32)})

    async def stall():
        sent = []

        async def receive():
            if not received:
                received.append(True)
                return {"type": "http.request", "body": data[:500], "more_body": True}
            await asyncio.sleep(0.05 if drip else 3600)
            received.append(True)
            return {"type": "http.request", "body": data[499 + len(received) : 500 + len(received)], "more_body": True}

        async def send(message):
            sent.append(message)

        received = []
        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(),
                 "headers": [(b"host", b"testserver")], "query_string": b"pattern=2:4", "http_version": "1.1",
                 "scheme": "http", "root_path": "", "client": None, "server": ("test", 80)}  # fmt: skip
        async with app.router.lifespan_context(app):
            await asyncio.wait_for(app(scope, receive, send), 300)
        return sent

    start, *body = asyncio.run(stall())
    problem = json.loads(b"".join(message.get("body", b"") for message in body))
    assert (start["status"], problem["code"]) == (408, "body_stalled")
    assert "upload_stall_s = 0.4" in problem["detail"]
    assert on_disk.files() == []


def test_a_slow_body_that_goes_on_is_taken(settings, save):
    app = create_app(settings.model_copy(update={"upload_stall_s": 600.0, "max_body_bytes": 10**7}))
    data = save({"a": np.zeros((1000, 1000), np.float32)})

    async def upload():
        loop = asyncio.get_running_loop()

        def slow_pieces():
            for start in range(0, len(data), 400_000):
                # The clock of the loop goes forward, as if the client had waited.
                loop.time = lambda clock=loop.time: clock() + 400.0
                yield {"type": "http.request", "body": data[start : start + 400_000],
                       "more_body": start + 400_000 < len(data)}  # fmt: skip
            yield asyncio.Event()

        async with app.router.lifespan_context(app):
            return await _send(app, "/v1/masks", "POST", slow_pieces(), b"pattern=2:4")

    start, *_ = asyncio.run(upload())
    assert start["status"] == 202


def test_a_stored_upload_that_was_cut_is_found_and_can_be_sent_again(client, put, good, on_disk, settings):
    digest = put(good)
    document = {"pattern": "2:4", "tensors": [{"name": "w", "digest": digest, "key": "layer.weight"}]}
    path = on_disk.path / "tensors" / digest[:2] / digest
    path.write_bytes(b"\x00" * 9)
    response = client.post("/v1/jobs", json=document)
    assert (response.status_code, response.json()["code"]) == (409, "upload_damaged")
    assert response.json()["digest"] == digest
    assert client.head(f"/v1/tensors/{digest}").status_code == 404
    put(good)
    assert client.post("/v1/jobs", json=document).status_code == 202
    path.write_bytes(good[:-1])
    put(good)
    on_disk.check_whole()


def test_too_many_tensors_are_refused(client, save, check_problem):
    data = save({str(number): np.zeros((4, 4), np.float32) for number in range(6)})
    response = client.post("/v1/masks", params={"pattern": "2:4"}, content=data)
    assert check_problem(response, 413, "too_many_tensors", "6 tensors")["limit"] == 5


def test_equal_uploads_at_once_leave_one(client, good, on_disk):
    digest, codes = blake3(good).hexdigest(), []
    barrier = threading.Barrier(6)

    def upload():
        barrier.wait()
        codes.append(client.put(f"/v1/tensors/{digest}", content=good).status_code)

    threads = [threading.Thread(target=upload) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(codes) <= {200, 201}
    assert 201 in codes
    assert on_disk.files() == [f"tensors/{digest[:2]}/{digest}"]
    on_disk.check_whole()


async def _send(app, path, method, messages, query=b""):
    """Speak ASGI: gives what the application sent; a message may be an exception to raise into the application."""
    sent = []
    waiting = iter(messages)

    async def receive():
        message = next(waiting)
        if isinstance(message, asyncio.Event):
            message.set()
            await asyncio.Event().wait()
        return message

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query,
             "headers": [(b"host", b"testserver")], "http_version": "1.1", "scheme": "http", "root_path": "",
             "client": None, "server": ("test", 80)}  # fmt: skip
    await app(scope, receive, send)
    return sent


@pytest.mark.parametrize("before", [3, 60, 100_000 - 1])
@pytest.mark.parametrize(("path", "method"), [("/v1/masks", "POST"), ("/v1/tensors/" + "0" * 64, "PUT")])
def test_an_upload_that_the_client_cuts_leaves_nothing(app, save, on_disk, path, method, before):
    data = save({"a": np.zeros(24_000, np.float32)})[:before]
    messages = [{"type": "http.request", "body": data, "more_body": True}, {"type": "http.disconnect"}]

    async def cut():
        async with app.router.lifespan_context(app):
            await _send(app, path, method, messages, b"pattern=2:4")

    asyncio.run(cut())
    assert on_disk.files() == []


@pytest.mark.parametrize(("path", "method"), [("/v1/masks", "POST"), ("/v1/tensors/" + "0" * 64, "PUT")])
def test_an_upload_that_is_canceled_leaves_nothing(settings, save, on_disk, path, method):
    app = create_app(settings.model_copy(update={"max_body_bytes": 10**9}))
    data = save({"a": np.zeros(10_000_000, np.float32)})

    async def cancel():
        arrived = asyncio.Event()
        pieces = [{"type": "http.request", "body": data[k : k + 2**20], "more_body": True}
                  for k in range(0, 30 * 2**20, 2**20)]  # fmt: skip
        async with app.router.lifespan_context(app):
            task = asyncio.create_task(_send(app, path, method, [*pieces, arrived], b"pattern=2:4"))
            await asyncio.wait_for(arrived.wait(), 300)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancel())
    assert on_disk.files() == []


def test_leftovers_of_a_killed_service_are_cleared_when_it_starts(settings, on_disk, monkeypatch):
    monkeypatch.setattr("masksmith_state.blobs.leftovers.clear_leftovers.__defaults__", (-1.0,))
    with TestClient(create_app(settings)):
        pass
    for name in ("incoming/" + "f0" * 16, "tensors/ab/" + "ab" * 32 + "#1"):
        (Path(settings.store_url) / name).parent.mkdir(parents=True)
        (Path(settings.store_url) / name).write_bytes(b"half")
    with TestClient(create_app(settings)):
        assert on_disk.files() == []


@pytest.mark.parametrize("size", [64, 400_000], ids=["one block", "a stream"])
def test_sending_a_damaged_upload_again_replaces_it(client, app, save, on_disk, size):
    app.state.masksmith.settings.max_body_bytes = 10**7
    data = save({"w": np.zeros((size, 1), np.float32)})
    digest = blake3(data).hexdigest()
    assert client.put(f"/v1/tensors/{digest}", content=data).status_code == 201
    path = on_disk.path / "tensors" / digest[:2] / digest
    path.write_bytes(data[:-2] + b"\x7f\x40")
    assert client.put(f"/v1/tensors/{digest}", content=data).status_code == 200
    assert path.read_bytes() == data
    # The header of an upload is read when a job is submitted.
    path.write_bytes(bytes(100) + data[100:])
    document = {"pattern": "2:4", "tensors": [{"name": "w", "digest": digest, "key": "w"}]}
    assert client.post("/v1/jobs", json=document).json()["code"] == "upload_damaged"
    assert client.head(f"/v1/tensors/{digest}").status_code == 404
