"""Retention: what is deleted when, and what never is; the tests set the clock of the sweeps."""

import os
import threading
import time
from pathlib import Path

import pytest

from masksmith_state.blobs.names import (
    incoming_name,
    piece_list_name,
    result_name,
    result_report_name,
    statistic_name,
    upload_name,
)
from masksmith_state.blobs.references import BlobReferences, LinkOutcome
from masksmith_state.blobs.retention import INCOMING_AFTER_S, Retention, SweepCounts
from masksmith_state.blobs.store import BlobStore
from masksmith_state.errors import FullError, MissingUploadError
from masksmith_state.jobs.model import Admission
from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.records import JobRecords
from masksmith_state.jobs.shards import PlannedTensor, Shard
from masksmith_wire.documents import MasksOptions

from .conftest import RESULT_AGE_S, UPLOAD_AGE_S, Clock, names


def test_an_upload_is_its_senders(references, upload):
    assert upload(owner="ann") is LinkOutcome.NEW
    assert upload(owner="ann") is LinkOutcome.KNOWN
    assert references.touch("ann", "a" * 64, any_owner=False) == 10
    assert references.touch("bob", "a" * 64, any_owner=False) is None
    assert references.touch("bob", "a" * 64, any_owner=True) == 10
    assert references.touch("bob", "b" * 64, any_owner=True) is None
    assert upload(owner="bob") is LinkOutcome.NEW
    assert (references.bytes_of("ann"), references.bytes_of("bob"), references.bytes_of("eve")) == (10, 10, 0)


def test_an_upload_beyond_a_limit_is_not_counted(references, upload, store):
    assert upload("a", most=25) is LinkOutcome.NEW
    assert upload("b", most=25) is LinkOutcome.NEW
    assert upload("c", most=25) is LinkOutcome.FULL
    assert upload("a", most=0) is LinkOutcome.KNOWN
    assert names(store) == {upload_name("a" * 64), upload_name("b" * 64)}
    assert references.bytes_of("ann") == 20
    upload("c", owner="bob")
    assert upload("c", most=25) is LinkOutcome.FULL
    assert upload_name("c" * 64) in names(store)


def test_the_limit_that_an_upload_exceeds_is_told_apart(references, store):
    store.put(upload_name("a" * 64), bytes(10))
    assert references.link("ann", "a" * 64, 10, 25, max_record_bytes=1) is LinkOutcome.RECORDS_FULL
    assert upload_name("a" * 64) not in names(store)
    assert references.bytes_of("ann") == 0


def test_an_upload_expires_after_its_last_use(references, upload, store, sweep):
    upload()
    assert sweep(UPLOAD_AGE_S - 5) == SweepCounts()
    assert sweep(UPLOAD_AGE_S + 5) == SweepCounts(uploads=1)
    assert names(store) == set()
    assert references.bytes_of("ann") == 0
    assert references.touch("ann", "a" * 64, any_owner=True) is None
    assert upload() is LinkOutcome.NEW


def test_it_stays_for_the_key_that_used_it_last(references, upload, store, sweep, records):
    upload(owner="ann")
    upload(owner="bob")
    age(records, f"ann:{'a' * 64}", UPLOAD_AGE_S)
    assert sweep(5) == SweepCounts(uploads=1)
    assert references.touch("ann", "a" * 64, any_owner=False) is None
    assert references.touch("bob", "a" * 64, any_owner=False) == 10
    age(records, f"bob:{'a' * 64}", UPLOAD_AGE_S)
    assert references.touch("bob", "a" * 64, any_owner=False) == 10
    assert sweep(5) == SweepCounts()


def age(records, member, seconds):
    records.redis.zincrby("masksmith:uploads", -seconds, member)


def test_the_deletion_of_a_job_that_has_ended_is_no_use_of_its_uploads(upload, sweep, job, records, finish):
    upload()
    ended = job("a")
    finish(ended)
    age(records, f"ann:{'a' * 64}", UPLOAD_AGE_S)
    assert records.delete(ended)
    assert sweep(5).uploads == 1


def test_what_a_live_job_reads_stays_however_old(upload, store, sweep, job, records, finish):
    upload("a")
    upload("b")
    live = job("a")
    assert sweep(10**9, orphans=True) == SweepCounts(uploads=1)
    assert names(store) == {upload_name("a" * 64)}
    finish(live)
    assert sweep(UPLOAD_AGE_S - 5) == SweepCounts()
    assert sweep(UPLOAD_AGE_S + 5) == SweepCounts(uploads=1)
    assert upload_name("a" * 64) not in names(store)


@pytest.mark.parametrize("how", ["cancel", "delete"])
def test_a_job_that_ends_early_releases_its_uploads(upload, store, sweep, job, records, how):
    upload()
    getattr(records, how)(job("a"))
    assert sweep(UPLOAD_AGE_S + 5).uploads == 1
    assert names(store) == set()


def test_an_admins_job_holds_what_another_key_sent(upload, sweep, job, store):
    upload(owner="ann")
    with pytest.raises(MissingUploadError, match="a" * 64):
        job("a", owner="bob")
    job("a", owner="root", uploaders="anybody")
    assert sweep(10**9) == SweepCounts()
    with pytest.raises(MissingUploadError, match="b" * 64):
        job("a", "b", owner="root", uploaders="anybody")
    assert upload_name("a" * 64) in names(store)


def test_a_refused_job_holds_nothing(upload, sweep, job, records):
    upload()
    with pytest.raises(MissingUploadError):
        job("a", "b")
    with pytest.raises(FullError):
        job("a", max_bytes_of_owner=10)
    assert sweep(UPLOAD_AGE_S + 5).uploads == 1
    assert records.live_count() == 0


def test_results_count_until_their_job_is_gone(references, upload, job, records):
    upload()
    made = job("a", max_bytes_of_owner=18)
    assert references.bytes_of("ann") == 10 + 4 * 2
    with pytest.raises(FullError) as caught:
        job("a", max_bytes_of_owner=25)
    assert (caught.value.exceeded_limit, caught.value.limit) == ("bytes", 25)
    records.delete(made)
    assert references.bytes_of("ann") == 10


def test_a_job_and_its_results_expire_after_its_end(upload, store, sweep, job, finish, records):
    upload()
    made = job("a")
    assert sweep(10**9) == SweepCounts()
    finish(made)
    assert sweep(RESULT_AGE_S - 5).jobs == 0
    assert result_name("f" * 64) in names(store)
    assert sweep(RESULT_AGE_S + 5).jobs == 1
    assert records.read(made) is None
    assert names(store) == set()
    leftover = [key for key in records.redis.keys("masksmith:*") if made in key or "f" * 64 in key]
    assert leftover == []


def test_nothing_expires_at_an_age_that_is_infinite(upload, store, job, finish, records, references):
    upload("a")
    finish(job("a"))
    clock = Clock(records)
    clock.ahead = 1e9
    assert Retention(records, references, store, float("inf"), float("inf"), clock).sweep() == SweepCounts()
    assert len(names(store)) == 3


def test_orphans_of_a_crash_are_deleted_once_they_are_old(store, sweep, monkeypatch, upload, caplog):
    upload("a")
    for name in (upload_name("b" * 64), result_name("c" * 64), result_report_name("c" * 64), statistic_name("d" * 64)):
        store.put(name, b"left")
    strange = Path(store.url) / "tensors" / "thesis.txt"
    strange.write_text("precious")
    foreign = Path(store.url) / upload_name("e" * 64)
    foreign.parent.mkdir()
    foreign.write_text("not written by this program, as it has no list of digests")
    assert sweep(0, orphans=True) == SweepCounts()
    monkeypatch.setattr("masksmith_state.blobs.retention.ORPHAN_AFTER_S", -5.0)
    # The first sweep that sees them only takes their names down.
    assert sweep(0, orphans=True) == SweepCounts()
    monkeypatch.setattr("masksmith_state.blobs.retention.ORPHAN_AFTER_S", 0.0)
    with caplog.at_level("INFO"):
        assert sweep(1, orphans=True).orphans >= 2
    assert "deleted upload:" + "b" * 64 in caplog.text
    assert strange.exists()
    assert foreign.exists()
    strange.unlink()
    foreign.unlink()
    assert names(store) == {upload_name("a" * 64), statistic_name("d" * 64)}
    assert sweep(UPLOAD_AGE_S + 5, orphans=True).orphans == 1


def test_an_upload_that_did_not_get_its_name_is_deleted_after_a_day(store, sweep):
    """A service was killed after it had received the upload; in a bucket, nothing else deletes such an object."""
    name, other = incoming_name("f0" * 16), incoming_name("thesis")
    for each in (name, other):
        store.put(each, b"whole")
        for path in (Path(store.url, each), Path(store.url, piece_list_name(each))):
            os.utime(path, (time.time() - INCOMING_AFTER_S + 600,) * 2)
    assert sweep(0, orphans=True) == SweepCounts()
    for path in Path(store.url).rglob("*"):
        os.utime(path, (time.time() - INCOMING_AFTER_S - 600,) * 2)
    assert sweep(0, orphans=True).orphans == 2
    left = [each for folder in ("incoming", "pieces") for each, _ in store.list(folder)]
    assert left == [other, piece_list_name(other)]


def test_an_old_blob_that_is_set_aside_stays_for_the_age_of_uploads(upload, store, sweep):
    upload()
    name = upload_name("a" * 64)
    os.utime(Path(store.url, name), (1, 1))
    store.set_aside(name)
    sweep(90, orphans=True)
    assert store.is_set_aside(name)
    sweep(110, orphans=True)
    assert not store.is_set_aside(name)


def test_a_deletion_that_was_killed_is_finished(records, store, references, retention, upload, monkeypatch):
    upload()
    with monkeypatch.context() as patch:
        patch.setattr(BlobStore, "delete", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            references.expire_upload("ann", "a" * 64, time.time() + 60)
    assert names(store) == {upload_name("a" * 64)}
    records.redis.hset("masksmith:tombstones", f"upload:{'a' * 64}", f"{time.time() - 3600}:dead")
    retention.sweep(orphans=False)
    assert names(store) == set()
    assert upload() is LinkOutcome.NEW
    assert names(store) == {upload_name("a" * 64)}


def test_an_upload_that_comes_while_it_is_being_deleted_is_sent_again(records, store, references, upload, monkeypatch):
    upload()
    deleting, go_on = threading.Event(), threading.Event()
    delete = BlobStore.delete

    def slow_delete(self, name):
        deleting.set()
        assert go_on.wait(300)
        delete(self, name)

    monkeypatch.setattr(BlobStore, "delete", slow_delete)
    thread = threading.Thread(target=references.expire_upload, args=("ann", "a" * 64, time.time() + 60))
    thread.start()
    assert deleting.wait(300)
    store.put(upload_name("a" * 64), bytes(10))
    threading.Timer(0.2, go_on.set).start()
    assert references.link("ann", "a" * 64, 10, None) is LinkOutcome.LOST
    thread.join()
    assert references.touch("ann", "a" * 64, any_owner=True) is None
    assert references.bytes_of("ann") == 0
    assert upload() is LinkOutcome.NEW


def test_a_paused_process_whose_deletion_another_finished_deletes_nothing(
    records, store, references, upload, monkeypatch
):
    upload()
    hget = records.redis.hget

    def late(key, field):
        # While it slept another one has finished its work, and the upload was sent again.
        records.redis.hdel(key, field)
        store.put(upload_name("a" * 64), bytes(10))
        monkeypatch.undo()
        return hget(key, field)

    monkeypatch.setattr(records.redis, "hget", late)
    assert references.expire_upload("ann", "a" * 64, time.time() + 60)
    assert names(store) == {upload_name("a" * 64)}


TOMBSTONE = f"upload:{'a' * 64}"


def test_a_paused_process_leaves_the_tombstone_of_the_one_that_took_over(
    records, store, references, upload, monkeypatch
):
    """Otherwise the upload could be sent again and get a reference while the other one still deletes it."""
    upload()
    delete = BlobStore.delete

    def slow_delete(self, name):
        delete(self, name)
        records.redis.hset("masksmith:tombstones", TOMBSTONE, "another")

    monkeypatch.setattr(BlobStore, "delete", slow_delete)
    assert references.expire_upload("ann", "a" * 64, time.time() + 60)
    assert records.redis.hget("masksmith:tombstones", TOMBSTONE) == "another"


def test_a_deletion_at_work_is_not_taken_over(records, store, references, monkeypatch):
    """A second process deletes nothing, and a reader of the result waits until the first one has ended."""
    report, mask = result_report_name("f" * 64), result_name("f" * 64)
    store.put(report, b"{}")
    store.put(mask, b"mask")
    deleted, taken_over = [], []

    def delete(self, name):
        deleted.append(name)
        taken_over.append(references.delete_unreferenced_result("f" * 64))
        references.finish_deletions()

    monkeypatch.setattr(BlobStore, "delete", delete)
    assert references.delete_unreferenced_result("f" * 64)
    assert taken_over == [False] * len(deleted)
    assert deleted[:2] == [report, mask]
    assert len(deleted) == len(set(deleted))
    assert not records.redis.exists("masksmith:tombstones")


def test_a_reader_gives_up_only_on_the_tombstone_that_it_has_waited_for(records, references, upload, job, monkeypatch):
    upload()
    made, blob = job("a"), f"result:{'f' * 64}"
    records.redis.hset("masksmith:tombstones", blob, "first")
    monkeypatch.setattr("masksmith_state.blobs.references.TOMBSTONE_TIMEOUT_S", 10.0)
    clock, sleeps = [0.0], []

    def sleep(_seconds):
        # The first deletion ends, and another one begins, before the time in which the first may be waited for.
        clock[0] += 6.0
        sleeps.append(records.redis.hget("masksmith:tombstones", blob))
        if len(sleeps) == 1:
            records.redis.hset("masksmith:tombstones", blob, "second")

    monkeypatch.setattr("masksmith_state.blobs.references.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("masksmith_state.blobs.references.time.sleep", sleep)
    assert references.add_result_reference(made, "f" * 64)
    assert sleeps == ["first", "second", "second", None]


def test_uploads_jobs_and_sweeps_at_once_never_lose_what_a_live_job_reads(valkey, records, store):
    """Keys send and use the same few uploads while sweeps delete whatever they may."""
    stop, faults = threading.Event(), []

    def use(owner):
        mine = JobRecords(valkey.url)
        references, turn, made = BlobReferences(mine.redis, store), 0, 0
        while made < 15:
            turn += 1
            digest = "abc"[turn % 3] * 64
            if references.touch(owner, digest, any_owner=False) is None:
                store.put(upload_name(digest), bytes(10))
                if references.link(owner, digest, 10, None) is LinkOutcome.LOST:
                    continue
            tensor = PlannedTensor(name="w", digest=digest, dtype="F32", shape=[4, 4], start=8)
            plan = MasksPlan(options=MasksOptions(pattern="2:4"), tensors=[tensor])
            try:
                job, _ = mine.create(plan, [Shard(tensor=0, first=0, last=4)],
                                     admission=Admission(owner=owner, uploaders="owner"))  # fmt: skip
            except MissingUploadError:
                continue
            made += 1
            if store.size(upload_name(digest)) is None:
                faults.append((owner, turn))
            mine.cancel(job)
        mine.redis.close()

    def sweep():
        mine = JobRecords(valkey.url)
        retention = Retention(mine, BlobReferences(mine.redis, store), store, 0.0, 0.0)
        while not stop.is_set():
            retention.sweep(orphans=False)
        mine.redis.close()

    sweeper = threading.Thread(target=sweep)
    users = [threading.Thread(target=use, args=(owner,)) for owner in ("ann", "bob", "eve")]
    sweeper.start()
    for thread in users:
        thread.start()
    for thread in users:
        thread.join()
    stop.set()
    sweeper.join()
    assert faults == []


def test_one_process_has_its_turn(retention, records):
    assert retention.sweep_if_claimed() == SweepCounts()
    assert retention.sweep_if_claimed() is None
    assert records.claim_sweep(60.0)
