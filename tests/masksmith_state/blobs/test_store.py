import asyncio
import socket
import time
from pathlib import Path

import pytest
from blake3 import blake3
from obstore.exceptions import BaseError as StoreError

from masksmith_state.blobs.leftovers import clear_leftovers
from masksmith_state.blobs.names import (
    incoming_name,
    result_name,
    result_report_name,
    statistic_name,
    upload_name,
)
from masksmith_state.blobs.pieces import PieceList
from masksmith_state.blobs.store import BlobStore

MIB = 2**20


async def pieces(*chunks):
    for chunk in chunks:
        if isinstance(chunk, BaseException):
            raise chunk
        yield chunk


def files(store):
    """Every file but the lists of digests, each of which belongs to one of these."""
    root = Path(store.url)
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    lists = [name for name in names if name.startswith("pieces/")]
    assert {name.removeprefix("pieces/") for name in lists} <= set(names), names
    return [name for name in names if name not in lists]


async def whole(store, name):
    return b"".join([piece async for piece in store.stream(name)])


def test_a_blob_is_read_back(store):
    store.put("a/b/c", b"0123456789")
    assert store.get("a/b/c") == b"0123456789"
    assert store.size("a/b/c") == 10
    assert store.get_range("a/b/c", 2, 5) == b"234"
    assert store.get_range("a/b/c", 5, 5) == b""
    assert store.get_range("a/b/c", 8, 50) == b"89"
    assert asyncio.run(whole(store, "a/b/c")) == b"0123456789"
    store.put("a/b/c", b"new")
    assert store.get("a/b/c") == b"new"
    assert files(store) == ["a/b/c"]


def test_a_missing_object_is_a_missing_file(store):
    assert store.size("a") is None
    store.delete("a")
    for read in (lambda: store.get("a"), lambda: store.get_range("a", 0, 8), lambda: store.rename("a", "b"),
                 lambda: asyncio.run(whole(store, "a"))):  # fmt: skip
        with pytest.raises(FileNotFoundError):
            read()


def test_delete(store):
    store.put("a", b"x")
    store.delete("a")
    assert (store.size("a"), files(store)) == (None, [])


def test_rename_replaces(store):
    store.put("incoming/a", b"new")
    store.put("tensors/b", b"old")
    store.rename("incoming/a", "tensors/b")
    assert (store.get("tensors/b"), files(store)) == (b"new", ["tensors/b"])


@pytest.mark.parametrize(
    "chunks", [[], [b"abc"], [b"", b"a", b""], [bytes([n]) * 65536 for n in range(200)], [b"x" * (20 * MIB + 1), b"y"]],
    ids=["none", "one", "empty", "many", "large"],
)  # fmt: skip
def test_a_stream_is_stored_whole(store, chunks):
    assert asyncio.run(store.put_stream("a/b", pieces(*chunks))) is None
    assert store.get("a/b") == b"".join(chunks)
    assert files(store) == ["a/b"]


@pytest.mark.parametrize("before", [0, 1, 30 * MIB])
def test_a_stream_that_breaks_leaves_nothing(store, before):
    broken = pieces(b"x" * before, ConnectionError("cut"))
    with pytest.raises(Exception, match="cut"):
        asyncio.run(store.put_stream("a/b", broken))
    assert files(store) == []


def test_a_stream_that_breaks_leaves_the_older_blob(store):
    store.put("a", b"old")
    with pytest.raises(Exception, match="cut"):
        asyncio.run(store.put_stream("a", pieces(b"x" * 20 * MIB, ConnectionError("cut"))))
    assert (store.get("a"), files(store)) == (b"old", ["a"])


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        (upload_name(blake3(b"data").hexdigest()), "before the check"),
        (upload_name(blake3(b"data").hexdigest()), "after the check"),
        (upload_name(blake3(b"data").hexdigest()), "at the end"),
        (result_name("ab" * 32), "before the check"),  # There is no check: the list of a result is always kept.
        (result_name("ab" * 32), "at the end"),
    ],
)
def test_a_writer_that_fails_does_not_delete_what_another_has_written(store, monkeypatch, name, moment):
    other, put, size = BlobStore(store.url), store.objects.put, store.objects.size

    def failing_put(target, data):
        if target != name:
            return put(target, data)
        if moment == "before the check":
            other.put(name, data)
        raise OSError("disk full")

    def slow_size(target):
        stored_bytes = size(target)
        if moment == "after the check":
            other.put(name, b"data")
        return stored_bytes

    if moment == "at the end":
        other.objects.put(f"pieces/{name}", PieceList.of(b"data").encode(name))
    monkeypatch.setattr(store.objects, "put", failing_put)
    monkeypatch.setattr(store.objects, "size", slow_size)
    with pytest.raises(OSError, match="disk full"):
        store.put(name, b"data")
    if moment == "at the end":  # The other writer had written the list only.
        other.objects.put(name, b"data")
    assert BlobStore(store.url).get_range(name, 1, 3) == b"at"


@pytest.mark.parametrize("name", [upload_name(blake3(b"data").hexdigest()), incoming_name("0f" * 16)])
def test_an_upload_that_cannot_be_written_leaves_no_list(store, monkeypatch, name):
    put = store.objects.put
    monkeypatch.setattr(store.objects, "put", lambda target, data: put(target, data if target != name else 1))
    with pytest.raises(ValueError, match="Unexpected input"):
        store.put(name, b"data")
    assert list(store.list("pieces")) == []


def test_a_canceled_stream_leaves_no_files(store):
    async def cancel():
        arrived = asyncio.Event()

        async def endless():
            for _ in range(20):
                yield bytes(MIB)
            arrived.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(store.put_stream("a", endless()))
        await asyncio.wait_for(arrived.wait(), 300)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert files(store) == []


def test_equal_streams_at_once_leave_one_blob(store):
    async def write():
        await asyncio.gather(*(store.put_stream("a", pieces(*[b"z" * MIB] * 12)) for _ in range(4)))

    asyncio.run(write())
    assert store.get("a") == b"z" * 12 * MIB
    assert files(store) == ["a"]


def test_names_lie_in_folders_of_their_own():
    digest = "ab" + "0" * 62
    assert upload_name(digest) == f"tensors/ab/{digest}"
    assert result_name(digest) == f"masks/ab/{digest}"
    assert result_report_name(digest) == f"masks/ab/{digest}.json"


def test_a_directory_is_made_where_it_is_missing(tmp_path):
    store = BlobStore(str(tmp_path / "a" / "b"), create=True)
    store.put("c", b"x")
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"x"


def test_a_store_opened_while_its_directory_is_missing_waits_for_it(store, tmp_path):
    store.put("masks/a", b"a")
    away = Path(store.url).rename(tmp_path / "away")
    late = BlobStore(store.url)
    for call in (lambda: late.size("masks/a"), lambda: late.put("masks/b", b"b"), late.free_bytes):
        with pytest.raises(StoreError, match="is missing"):
            call()
    assert not Path(store.url).exists()
    away.rename(store.url)
    assert late.get("masks/a") == b"a"


def test_leftovers_of_killed_writers_are_cleared_once_they_are_old(store):
    whole, cut, incoming = upload_name("ab" * 32), upload_name("ab" + "d" * 62), incoming_name("f0" * 16)
    store.put(whole, b"whole")
    for name in (f"{cut}#1", f"{cut}#12", incoming):
        path = Path(store.url) / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    store.put_sealed(statistic_name("cd" * 32), b"sums")
    assert clear_leftovers(store) == 0
    assert clear_leftovers(store, -1.0) == 4
    assert files(store) == [whole]


def test_a_leftover_that_cannot_be_deleted_stops_no_other(store, monkeypatch, caplog):
    """As one in a folder of another user."""
    names = [incoming_name(f"{number:032x}") for number in range(4)]
    for name in names:
        store.put(name, b"half")
        Path(store.url, "pieces", name).unlink()
    unlink = Path.unlink

    def deny(path, **options):
        if path.name in names[1]:
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", deny)
    assert clear_leftovers(store, -1.0) == 3
    assert files(store) == [names[1]]
    assert "1 leftover(s) cannot be deleted, the first: [Errno 13] Permission denied" in caplog.text


def test_files_of_other_programs_are_no_leftovers(store):
    strange = (
        "statistics/thesis/results.csv", "mail/incoming/letter.eml", "incoming/letter", "code/main.c#1",
        "tensors/ab/notes.txt#1", "statistics/ab/" + "cd" * 32, "masks/ab/x.json", "tensors/ab/" + "ab" * 32 + "#",
        "tensors/ab/" + "ab" * 32 + "#x", "backup/tensors/ab/" + "ab" * 32 + "#1",
    )  # fmt: skip
    for name in strange:
        path = Path(store.url) / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"precious")
    assert clear_leftovers(store, -1.0) == 0
    assert files(store) == sorted(strange)


def test_a_missing_directory_is_not_a_missing_blob(store, tmp_path):
    store.put("masks/a", b"a")
    away = Path(store.url).rename(tmp_path / "away")
    for call in (
        lambda: store.size("masks/a"), lambda: store.get("masks/a"), lambda: store.get_range("masks/a", 0, 1),
        lambda: store.put("masks/b", b"b"), lambda: asyncio.run(store.put_stream("masks/b", pieces(b"b"))),
    ):  # fmt: skip
        with pytest.raises(StoreError, match="is missing"):
            call()
    assert not Path(store.url).exists()
    away.rename(store.url)
    assert store.get("masks/a") == b"a"
    assert store.size("masks/b") is None


@pytest.mark.parametrize(
    "listens", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["nobody there", "nobody answers"]
)
def test_a_bucket_out_of_reach_is_an_error_soon(monkeypatch, listens):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listens:
            server.listen()
        monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
            monkeypatch.setenv(name, "x")
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        begun = time.monotonic()
        with pytest.raises(StoreError):
            BlobStore("s3://bucket/prefix").size("masks/a")
        assert time.monotonic() - begun < 60


def test_a_directory_that_is_remounted_during_a_read_is_read_again(tmp_path):
    store = BlobStore(str(tmp_path / "store"), create=True)
    store.put("blob", b"bytes")
    folder, away = tmp_path / "store", tmp_path / "away"
    folder.rename(away)
    # Back just after the first look found nothing, and before anybody asks whether the directory is there.
    check = store.objects._check_directory
    store.objects._check_directory = lambda: (away.rename(folder), check())
    assert store.get("blob") == b"bytes"
