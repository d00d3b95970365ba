"""References to an upload that is missing are removed, unless it is sent again at that moment."""

import time

import pytest

from masksmith_state.blobs.names import upload_name
from masksmith_state.blobs.references import BlobReferences, LinkOutcome

from .conftest import names

DIGEST = "a" * 64
NAME, TOMBSTONE = upload_name(DIGEST), f"upload:{DIGEST}"
JUMP_S = 7200


@pytest.fixture
def send_during_check(store, upload, monkeypatch):
    """Send the upload again after the first check whether it exists, for another key."""

    def send_during_check():
        size, outcomes = store.size, []

        def checked(name):
            monkeypatch.setattr(store, "size", size)
            found = size(name)
            outcomes.append(upload(owner="bob"))
            return found

        monkeypatch.setattr(store, "size", checked)
        return outcomes

    return send_during_check


def test_a_missing_upload_is_forgotten(references, upload, store, records):
    upload()
    upload(owner="bob")
    store.set_aside(NAME)
    assert references.forget_missing_upload(DIGEST)
    assert not references.is_referenced("upload", DIGEST)
    assert (references.bytes_of("ann"), references.bytes_of("bob")) == (0, 0)
    assert references.forget_missing_upload(DIGEST)
    assert not records.redis.exists("masksmith:tombstones")
    assert upload() is LinkOutcome.NEW


def test_an_upload_that_was_sent_again_before_it_is_forgotten_keeps_its_references(references, upload, store, records):
    upload()
    store.set_aside(NAME)
    upload(owner="bob")
    assert not references.forget_missing_upload(DIGEST)
    assert references.touch("bob", DIGEST, any_owner=False) == 10
    assert not records.redis.exists("masksmith:tombstones")


def test_a_writer_that_finds_its_upload_missing_leaves_the_reference_of_the_next_one(
    references, store, send_during_check
):
    """The first writer's upload was deleted; the second one has written it again when the first removes references."""
    sent = send_during_check()
    assert references.link("ann", DIGEST, 10, None) is LinkOutcome.NEW
    assert sent == [LinkOutcome.NEW]
    assert references.touch("bob", DIGEST, any_owner=False) == 10
    assert names(store) == {NAME}


def test_no_reference_is_added_between_check_and_removal(references, upload, store, records, monkeypatch):
    upload()
    store.set_aside(NAME)
    run, replies = references._scripts.run, []

    def slow(script, *args):
        if script == "unlink_all":
            replies.append(run("link", "bob", DIGEST, 10, -1, -1))
        return run(script, *args)

    monkeypatch.setattr(references._scripts, "run", slow)
    assert references.forget_missing_upload(DIGEST)
    assert replies == ["tombstone"]


def test_the_tombstone_of_a_killed_process_does_not_keep_an_upload_from_being_sent(
    references, upload, store, records, monkeypatch
):
    upload()
    store.set_aside(NAME)
    with monkeypatch.context() as patch:
        patch.setattr(store, "size", lambda _: 1 / 0)
        patch.setattr(references, "_clear_tombstone", lambda *_: None)
        with pytest.raises(ZeroDivisionError):
            references.forget_missing_upload(DIGEST)
    references.finish_deletions()
    token = records.redis.hget("masksmith:tombstones", TOMBSTONE)
    records.redis.hset("masksmith:tombstones", TOMBSTONE, f"{time.time() - 61}:{token}")
    references.finish_deletions()
    assert not records.redis.exists("masksmith:tombstones")
    assert upload() is LinkOutcome.KNOWN


@pytest.mark.parametrize("owner", [None, "ann"], ids=["unreferenced", "referenced"])
def test_a_tombstone_from_a_later_time_is_one_of_a_process_that_has_stopped(
    references, upload, store, records, monkeypatch, owner
):
    """The broker's clock was set back since then."""
    if owner is not None:
        upload(owner=owner)
    records.redis.hset("masksmith:tombstones", TOMBSTONE, f"{time.time() + JUMP_S}:dead")
    references.finish_deletions()
    assert not records.redis.exists("masksmith:tombstones")


def test_the_time_of_a_tombstone_is_that_of_the_broker(records, store, monkeypatch):
    """The clocks of two hosts may differ by more than the time after which a process is taken to have stopped."""
    monkeypatch.setattr(time, "time", lambda: 0.0)
    references, tokens = BlobReferences(records.redis, store), []
    delete = store.delete
    store.put(NAME, b"x")

    def note(name):
        tokens.append(float(records.redis.hget("masksmith:tombstones", TOMBSTONE).partition(":")[0]))
        delete(name)

    monkeypatch.setattr(store, "delete", note)
    assert references.delete_unreferenced_upload(DIGEST)
    assert abs(tokens[0] - records.now()) < 600
