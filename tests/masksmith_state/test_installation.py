"""The identity of an installation: broker and store that belong together, and combinations that are refused."""

import logging
import os
import threading
from pathlib import Path

import pytest
from obstore.exceptions import GenericError

from masksmith_state import broker
from masksmith_state.blobs.names import upload_name
from masksmith_state.blobs.store import BlobStore
from masksmith_state.errors import InstallationError
from masksmith_state.housekeeping import Housekeeping
from masksmith_state.installation import IDENTITY_KEY, IDENTITY_NAME, Installation


@pytest.fixture
def installation(records, store):
    return Installation(records.redis, store)


def test_a_new_broker_and_a_new_store_get_a_permanent_identity(installation, records, store):
    first = installation.claim()
    assert Installation(records.redis, BlobStore(store.url)).claim() == first
    store.put(upload_name("ab" * 32), b"x")
    assert Installation(records.redis, BlobStore(store.url)).claim() == first
    assert installation.is_still_claimed()


@pytest.mark.parametrize("moment", ["before the store's", "before the broker's second"])
def test_an_identity_that_another_process_writes_meanwhile_is_read_again(installation, records, store, moment):
    """Reads of the broker, of the store, and of the broker again, between which another process claims both."""
    read_broker, read_store = installation._read_broker, installation._read_store
    other = Installation(records.redis, BlobStore(store.url))
    steps = iter([None, other.claim] if moment == "before the broker's second" else [other.claim])

    def claim_by_other():
        if step := next(steps, None):
            step()

    def read_then_claim():
        identity = read_broker()
        claim_by_other()
        return identity

    def read_store_then_claim():
        identity = read_store()
        claim_by_other()
        return identity

    installation._read_broker, installation._read_store = read_then_claim, read_store_then_claim
    assert installation.claim() == other.identity


def test_a_file_that_another_process_is_writing_does_not_make_the_store_foreign(installation, store):
    (Path(store.url) / f"{IDENTITY_NAME}#1").write_text("{")
    assert installation.claim()


def test_processes_that_start_at_once_get_the_same_identity(records, store):
    identities, barrier = [], threading.Barrier(6)

    def claim():
        installation = Installation(records.redis, BlobStore(store.url))
        barrier.wait()
        identities.append(installation.claim())

    threads = [threading.Thread(target=claim) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(identities) == 6
    assert len(set(identities)) == 1


def test_an_emptied_broker_is_refused(installation, records, store):
    identity = installation.claim()
    records.redis.flushall()
    assert not installation.is_still_claimed()
    with pytest.raises(InstallationError, match=identity):
        Installation(records.redis, store).claim()
    with pytest.raises(InstallationError, match="another database"):
        installation.claim()
    assert records.redis.get(IDENTITY_KEY) is None


def test_the_broker_and_the_store_of_two_installations_are_refused(installation, records, store, tmp_path):
    installation.claim()
    records.redis.flushall()
    other = BlobStore(str(tmp_path / "other"), create=True)
    Installation(records.redis, other).claim()
    with pytest.raises(InstallationError, match="to installation"):
        Installation(records.redis, store).claim()


def test_a_store_that_is_not_mounted_is_refused(installation, records, store, tmp_path):
    installation.claim()
    store.put(upload_name("ab" * 32), b"x")
    empty = BlobStore(str(tmp_path / "empty"), create=True)
    with pytest.raises(InstallationError, match="mounted"):
        Installation(records.redis, empty).claim()
    assert not list(Path(empty.url).iterdir())


def test_a_directory_with_other_files_is_refused_and_not_changed(installation, records, store):
    other = Path(store.url) / "thesis.txt"
    other.write_text("a text")
    with pytest.raises(InstallationError, match="neither empty nor a store"):
        installation.claim()
    assert os.listdir(store.url) == ["thesis.txt"]
    assert records.redis.get(IDENTITY_KEY) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", "[" * 100_000, '{"installation": "x", "data_format": 99}'])
def test_a_damaged_identity_is_refused(installation, store, text):
    (Path(store.url) / IDENTITY_NAME).write_text(text)
    with pytest.raises(InstallationError):
        installation.claim()


@pytest.mark.parametrize("text", ["", '{"installation": "x", "data_format": 99}'])
def test_nothing_is_deleted_when_the_identity_was_damaged_later(installation, store, caplog, text):
    deleted = []
    housekeeping = Housekeeping(installation, sweep=lambda: deleted.append("a blob"))
    housekeeping.run()
    assert deleted == ["a blob"]
    (Path(store.url) / IDENTITY_NAME).write_text(text)
    housekeeping.run()
    assert deleted == ["a blob"]
    assert f"nothing is deleted: {'the store' if text else IDENTITY_NAME}" in caplog.text


@pytest.mark.parametrize("error", [PermissionError(13, "denied"), GenericError("no answer")], ids=repr)
def test_what_follows_the_claim_is_done_again_after_a_failure(installation, caplog, error):
    errors, calls = [error, error], []

    def clear():
        if errors:
            raise errors.pop()
        calls.append("cleared")

    housekeeping = Housekeeping(installation, delete_leftovers=clear)
    housekeeping.check()
    assert housekeeping.is_store_claimed
    assert caplog.text.count("cannot be deleted yet") == 1
    for _ in range(3):
        housekeeping.run()
    assert calls == ["cleared"]


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "allkeys-random", "volatile-ttl"])
def test_a_broker_that_evicts_is_refused(installation, records, monkeypatch, policy):
    monkeypatch.setattr(broker, "FRESH_S", 0.0)
    installation.broker.check()
    records.redis.config_set("maxmemory-policy", policy)
    try:
        with pytest.raises(InstallationError, match=f"{policy}.*noeviction"):
            installation.broker.check()
    finally:
        records.redis.config_set("maxmemory-policy", "noeviction")


def test_a_broker_without_persistence_causes_a_warning(installation, caplog):
    with caplog.at_level(logging.WARNING):
        installation.broker.check()
    assert "the broker persists nothing" in caplog.text
