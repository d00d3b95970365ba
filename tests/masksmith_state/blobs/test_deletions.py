"""Blobs that cannot be deleted: they do not stop the deletion of the others, and are tried again."""

import logging
import os
import time
from pathlib import Path

import pytest
from obstore.exceptions import BaseError as StoreError, GenericError

from masksmith_state.blobs.names import piece_list_name, result_name, statistic_name, upload_name
from masksmith_state.blobs.references import BACKUP, DEFERRED
from masksmith_state.blobs.retention import ORPHAN_AFTER_S, SweepCounts

from .conftest import RESULT_AGE_S, UPLOAD_AGE_S, names

LOCKED, FREE = "a" * 64, "b" * 64


@pytest.fixture
def lock(store, monkeypatch):
    """Let no blob named after `LOCKED` be deleted until the function that this gives is called."""
    delete = store.objects.delete

    def deny(name):
        if LOCKED in name:
            raise GenericError("Access Denied")
        delete(name)

    monkeypatch.setattr(store.objects, "delete", deny)
    return lambda: monkeypatch.setattr(store.objects, "delete", delete)


def forget_processes(records):
    """Take the processes that set tombstones to have stopped."""
    for blob in records.redis.hkeys("masksmith:tombstones"):
        records.redis.hset("masksmith:tombstones", blob, "1:x")


def test_an_upload_that_cannot_be_deleted_stops_no_other(upload, store, sweep, lock, records, caplog):
    upload("a")
    upload("b")
    with caplog.at_level(logging.ERROR):
        assert sweep(UPLOAD_AGE_S + 5) == SweepCounts(uploads=1)
    assert names(store) == {upload_name(LOCKED)}
    assert "1 blob(s) cannot be deleted, the first is ann:" + LOCKED + ": Access Denied" in caplog.text
    for letter in ("c", "d"):
        forget_processes(records)
        upload(letter)
        assert sweep(UPLOAD_AGE_S + 5) == SweepCounts(uploads=1)
    lock()
    forget_processes(records)
    sweep(0)
    assert names(store) == set()
    assert records.redis.hlen("masksmith:tombstones") == 0


def test_a_result_that_cannot_be_deleted_stops_no_other(upload, store, sweep, lock, job, finish):
    upload()
    for key in (LOCKED, FREE):
        finish(job("a"), key)
    assert sweep(RESULT_AGE_S + 5).results == 1
    assert not any(FREE in name for name in names(store))
    assert result_name(LOCKED) in names(store)


def test_a_deferred_deletion_that_fails_stops_no_other(store, references, lock, sweep, records):
    for digest in (LOCKED, FREE):
        store.put(upload_name(digest), b"x")
    records.redis.set(BACKUP, "1")
    for digest in (LOCKED, FREE):
        assert not references.delete_unreferenced_upload(digest)
    records.redis.delete(BACKUP)
    sweep(0)
    assert names(store) == {upload_name(LOCKED)}
    assert records.redis.smembers(DEFERRED) == {f"upload:{LOCKED}"}
    lock()
    forget_processes(records)
    sweep(0)
    assert (names(store), records.redis.smembers(DEFERRED)) == (set(), set())


def test_an_orphan_and_an_old_file_that_cannot_be_deleted_stop_no_other(store, sweep, lock, on_disk_since):
    for key in (LOCKED, FREE):
        store.put(result_name(key), b"mask")
        store.put_sealed(statistic_name(key), b"sums")
    on_disk_since(2 * ORPHAN_AFTER_S + 2 * UPLOAD_AGE_S)
    sweep(0, orphans=True)
    assert names(store) == {result_name(LOCKED), result_name(FREE), statistic_name(LOCKED)}
    assert sweep(ORPHAN_AFTER_S + 5, orphans=True).orphans == 1
    assert names(store) == {result_name(LOCKED), statistic_name(LOCKED)}


@pytest.fixture
def on_disk_since(store):
    """Set the time of the last change of every file so many seconds back."""

    def on_disk_since(seconds):
        for path in Path(store.url).rglob("*"):
            if path.is_file():
                os.utime(path, (time.time() - seconds,) * 2)

    return on_disk_since


def test_a_sweep_ends_with_an_error_if_the_store_is_unavailable(upload, store, sweep, records):
    upload()
    Path(store.url).rename(Path(store.url).with_name("away"))
    with pytest.raises(StoreError, match="is missing"):
        sweep(UPLOAD_AGE_S + 5)


def test_a_directory_in_place_of_a_list_is_set_aside(store):
    name = result_name(FREE)
    list_path = Path(store.url) / "pieces" / name
    for call in (lambda: store.put(name, b"mask"), lambda: store.set_aside(name), lambda: store.delete(name)):
        store.put(name, b"mask")
        list_path.unlink()
        (list_path / "folder").mkdir(parents=True)
        call()
        assert not list_path.is_dir()
    assert len(list((Path(store.url) / "damaged" / "pieces").rglob("folder"))) == 3


def test_the_list_of_a_blob_that_is_written_during_the_search_stays(store, sweep, monkeypatch):
    """Two lists without a blob are found; while the first is deleted, a worker writes the blob of the other."""
    blobs = [result_name(LOCKED), result_name(FREE)]
    for name in blobs:
        store.put(name, b"mask")
        store.objects.delete(name)
        os.utime(Path(store.url, piece_list_name(name)), (1, 1))
    delete = store.objects.delete

    def delete_and_write(name):
        monkeypatch.undo()
        delete(name)
        blobs.remove(name.removeprefix("pieces/"))
        store.put(blobs[0], b"mask")

    monkeypatch.setattr(store.objects, "delete", delete_and_write)
    assert sweep(0, orphans=True).orphans == 1
    assert store.size(piece_list_name(blobs[0])) is not None
