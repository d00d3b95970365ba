"""Backups of an installation that serves, and what they are restored into."""

import json
import os
import shutil
import stat
import threading
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from blake3 import blake3
from support.broker import Valkey
from support.leases import take
from support.processes import poll

from masksmith_state.backup import __main__ as command, copies as backup
from masksmith_state.blobs.names import piece_list_name, result_name, upload_name
from masksmith_state.blobs.references import BlobReferences
from masksmith_state.blobs.store import BlobStore
from masksmith_state.errors import InstallationError
from masksmith_state.fsck import check_store
from masksmith_state.installation import Installation
from masksmith_state.jobs.model import Admission
from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.records import JobRecords
from masksmith_state.jobs.reports import ShardReport
from masksmith_state.jobs.shards import PlannedTensor, Shard
from masksmith_state.keys import Keys
from masksmith_wire.documents import JobState, MasksOptions


class Site:
    """Records and store of an installation."""

    def __init__(self, records, store):
        self.records, self.store = records, store
        self.references = BlobReferences(records.redis, store)
        Installation(records.redis, store).claim()

    def upload(self, number, size=64):
        data = safetensors.numpy.save({"w": np.full((4, size), number, np.float32)})
        digest = blake3(data).hexdigest()
        self.store.put(upload_name(digest), data)
        self.references.link("ann", digest, len(data), None)
        return digest

    def job(self, number):
        digest = self.upload(number)
        tensor = PlannedTensor(name="w", digest=digest, dtype="F32", shape=[4, 64], start=80)
        plan = MasksPlan(options=MasksOptions(pattern="2:4"), tensors=[tensor])
        return self.records.create(plan, [Shard(tensor=0, first=0, last=4)], admission=Admission(owner="ann"))[0]

    def finish(self, job, number):
        key = f"{number:064x}"
        assert self.references.add_result_reference(job, key)
        digest = self.store.put(result_name(key), bytes([number % 256]) * 32)
        lease = take(self.records, job, 0)
        report = ShardReport(result=key, status="optimal", kept=128, entries=256, mask_digest=digest)
        assert self.records.complete(lease, report)


@pytest.fixture
def site(records, store):
    return Site(records, store)


@pytest.fixture
def empty(tmp_path_factory):
    """Another broker, and a store, both empty."""
    folder = tmp_path_factory.mktemp("broker", numbered=True)
    server = Valkey(folder)
    server.start()
    records = JobRecords(server.url)
    yield records, BlobStore(str(tmp_path_factory.mktemp("elsewhere") / "store"), create=True)
    records.redis.close()
    server.stop()


def check_complete(records, store):
    """Every blob that the records name is there, and has its digest."""
    ids = records.redis.zrange("masksmith:jobs", 0, -1)
    for job in ids:
        record = records.read(job)
        for digest in record.plan.uploads:
            if not record.state.is_terminal:
                store.verify(upload_name(digest))
        for report in records.reports(job).values():
            store.verify(result_name(report.result), report.mask_digest)
    return ids


def test_a_backup_is_restored_into_an_empty_installation(site, empty, tmp_path):
    first, second = site.job(1), site.job(2)
    site.finish(first, 1)
    take(site.records, second, 0)
    _, token = Keys(site.records.redis).create("ann")
    manifest = backup.back_up(site.records.redis, site.store, tmp_path / "backup")
    assert manifest.blobs == 3
    assert {stat.S_IMODE(os.stat(path).st_mode) for path in (tmp_path / "backup").glob("*.json*")} == {0o600}
    assert token.encode() not in (tmp_path / "backup" / "records.jsonl").read_bytes()
    records, store = empty
    assert backup.restore(records.redis, store, tmp_path / "backup") == manifest
    assert sorted(check_complete(records, store)) == sorted([first, second])
    assert (records.state(first), records.state(second)) == (JobState.SUCCEEDED, JobState.RUNNING)
    assert Installation(records.redis, store).claim() == manifest.installation
    assert [key.name for key in Keys(records.redis).all()] == ["ann"]
    # The shard that was at work is without a lease, and is taken again.
    assert take(records, second, 0).attempt == 2


def test_a_backup_is_consistent_while_jobs_come_end_and_are_deleted(site, empty, tmp_path, monkeypatch):
    stop, errors, count = threading.Event(), [], [0]

    def work():
        number = 10
        while not stop.is_set():
            try:
                job = site.job(number)
                site.finish(job, number)
                if number % 2:
                    site.records.delete(job)
                    site.references.delete_unreferenced_result(f"{number:064x}")
                    site.references.forget_upload("ann", site.upload(number))
            except Exception as error:  # noqa: BLE001 - asserted below, in the test's own thread
                errors.append(error)
                return
            number += 1
            count[0] = number

    def copy_after_more_work(*arguments):
        reached = count[0] + 4
        poll(lambda: count[0] >= reached or errors)
        return copy_store(*arguments)

    copy_store = backup._copy_store
    thread = threading.Thread(target=work)
    thread.start()
    try:
        poll(lambda: count[0] >= 30 or errors)
        with monkeypatch.context() as patch:
            patch.setattr(backup, "_copy_store", copy_after_more_work)
            backup.back_up(site.records.redis, site.store, tmp_path / "backup")
    finally:
        stop.set()
        thread.join()
    assert not errors
    records, store = empty
    backup.restore(records.redis, store, tmp_path / "backup")
    assert len(check_complete(records, store)) >= 8
    assert not check_store(store).damaged
    # What was to be deleted meanwhile is deleted now.
    site.references.finish_deletions()
    assert not site.records.redis.exists("masksmith:deferred")
    check_complete(site.records, site.store)


def test_no_blob_is_deleted_during_a_backup(site):
    digest = site.upload(1)
    site.records.redis.set("masksmith:backup", "token", ex=60)
    assert site.references.forget_upload("ann", digest)
    assert site.store.is_intact(upload_name(digest))
    site.references.finish_deletions()
    assert site.store.is_intact(upload_name(digest))
    site.records.redis.delete("masksmith:backup")
    site.references.finish_deletions()
    assert site.store.size(upload_name(digest)) is None


def test_copies_that_were_set_aside_go_with_an_upload_that_is_deleted_during_a_backup(site):
    digest = site.upload(1)
    site.store.set_aside(upload_name(digest))
    assert site.upload(1) == digest
    site.records.redis.set("masksmith:backup", "token", ex=60)
    assert site.references.forget_upload("ann", digest)
    site.records.redis.delete("masksmith:backup")
    assert [*site.store.list_damaged()]
    site.references.finish_deletions()
    assert not [*site.store.list_damaged()]


def test_blobs_without_their_list_of_digests_are_in_a_backup(site, empty, tmp_path):
    job = site.job(1)
    digest = site.upload(1)
    site.finish(job, 1)
    for name in (upload_name(digest), result_name(f"{1:064x}")):
        site.store.objects.delete(piece_list_name(name))
    assert backup.back_up(site.records.redis, site.store, tmp_path / "backup").blobs == 2
    records, store = empty
    backup.restore(records.redis, store, tmp_path / "backup")
    store.verify(upload_name(digest))
    assert check_complete(records, store) == [job]


def test_a_blob_that_vanishes_during_a_backup_is_named(site, tmp_path, monkeypatch, caplog):
    name = upload_name(site.upload(1))
    listed = [*site.store.list("tensors")]
    site.store.set_aside(name)
    monkeypatch.setattr(site.store, "list", lambda folder: iter(listed if folder == "tensors" else []))
    assert backup.back_up(site.records.redis, site.store, tmp_path / "backup").blobs == 0
    assert f"{name} is not copied" in caplog.text


def test_large_blobs_are_copied_in_pieces(site, empty, tmp_path, monkeypatch):
    monkeypatch.setattr(backup, "RANGE_BYTES", 100)
    digest = site.upload(1, size=400)
    backup.back_up(site.records.redis, site.store, tmp_path / "backup")
    records, store = empty
    backup.restore(records.redis, store, tmp_path / "backup")
    store.verify(upload_name(digest))


@pytest.mark.parametrize("what", ["broker", "store"])
def test_a_backup_is_not_restored_into_what_is_not_empty(site, empty, tmp_path, what):
    site.job(1)
    backup.back_up(site.records.redis, site.store, tmp_path / "backup")
    records, store = empty
    if what == "broker":
        records.redis.set("masksmith:anything", "1")
    else:
        store.objects.put("anything", b"1")
    with pytest.raises(InstallationError, match=f"the {what}.*is not empty"):
        backup.restore(records.redis, store, tmp_path / "backup")
    assert len(records.redis.keys("*")) == (what == "broker")
    assert [*store.objects.top_level()] == (["anything"] if what == "store" else [])


@pytest.mark.parametrize("name", ["manifest.json", "records.jsonl", "store"])
def test_an_incomplete_backup_is_not_restored(site, empty, tmp_path, name):
    site.job(1)
    folder = tmp_path / "backup"
    backup.back_up(site.records.redis, site.store, folder)
    path = next((folder / "store" / "tensors").rglob("*")) if name == "store" else folder / name
    path = next(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else path
    path.unlink()
    with pytest.raises(InstallationError):
        backup.restore(*(empty[0].redis, empty[1]), folder)
    assert not empty[0].redis.keys("*")


@pytest.mark.parametrize("what", ["backup", "target"])
def test_a_store_that_is_missing_at_a_restore_is_an_error_that_names_it(site, empty, tmp_path, what):
    site.job(1)
    folder, (records, store) = tmp_path / "backup", empty
    backup.back_up(site.records.redis, site.store, folder)
    missing = folder / "store" if what == "backup" else Path(store.url)
    shutil.rmtree(missing)
    with pytest.raises(InstallationError, match=f"{missing} is missing"):
        backup.restore(records.redis, store, folder)
    assert not records.redis.keys("*")


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "x"])
def test_a_backup_whose_files_are_no_objects_is_not_restored(site, empty, tmp_path, text):
    site.job(1)
    folder = tmp_path / "backup"
    manifest = backup.back_up(site.records.redis, site.store, folder)
    (folder / "records.jsonl").write_text(text)
    members = asdict(manifest) | {"records_digest": blake3(text.encode()).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(members))
    with pytest.raises(InstallationError, match=r"records\.jsonl is damaged"):
        backup.restore(*(empty[0].redis, empty[1]), folder)
    (folder / "manifest.json").write_text(text)
    with pytest.raises(InstallationError, match="is not a complete backup"):
        backup.restore(*(empty[0].redis, empty[1]), folder)
    assert not empty[0].redis.keys("*")


def test_records_that_were_changed_are_not_restored(site, empty, tmp_path):
    site.job(1)
    backup.back_up(site.records.redis, site.store, tmp_path / "backup")
    path = tmp_path / "backup" / "records.jsonl"
    path.write_bytes(path.read_bytes().replace(b"masksmith:jobs", b"masksmith:jobz"))
    with pytest.raises(InstallationError, match="damaged"):
        backup.restore(empty[0].redis, empty[1], tmp_path / "backup")


def test_a_backup_is_not_written_over_another(site, tmp_path):
    backup.back_up(site.records.redis, site.store, tmp_path / "backup")
    with pytest.raises(InstallationError, match="is not empty"):
        backup.back_up(site.records.redis, site.store, tmp_path / "backup")


def test_a_backup_does_not_create_a_missing_store(site, valkey, tmp_path, monkeypatch, capsys):
    Installation(site.records.redis, site.store).claim()
    monkeypatch.setenv("MASKSMITH_REDIS_URL", valkey.url)
    monkeypatch.setenv("MASKSMITH_STORE_URL", str(tmp_path / "unmounted"))
    monkeypatch.setattr("sys.argv", ["backup", "save", str(tmp_path / "backup")])
    monkeypatch.setattr(command, "protect_files", lambda: None)
    assert command.main() == 1
    assert "unmounted" in capsys.readouterr().err
    assert not (tmp_path / "unmounted").exists()


def test_the_command_prints_counts_and_sizes_for_people(site, valkey, tmp_path, monkeypatch, capsys):
    for number in range(3):
        site.upload(number, size=200_000)
    monkeypatch.setenv("MASKSMITH_REDIS_URL", valkey.url)
    monkeypatch.setenv("MASKSMITH_STORE_URL", str(tmp_path / "store"))
    monkeypatch.setattr("sys.argv", ["backup", "save", str(tmp_path / "backup")])
    monkeypatch.setattr(command, "protect_files", lambda: None)
    assert command.main() == 0
    assert capsys.readouterr().out.endswith(" records, 3 blobs of 9.2 MiB\n")


def test_a_key_that_expires_during_the_backup_is_not_kept_forever(site, tmp_path, monkeypatch):
    script = "return {'masksmith:idempotent:a', 0, 'x', 'masksmith:idempotent:b', 5, 'x', 'masksmith:counts', -1, 'x'}"
    monkeypatch.setattr(backup, "load", lambda package: {"dump": script})
    count, _ = backup._save_records(site.records.redis, tmp_path / "records")
    lines = [json.loads(line) for line in (tmp_path / "records").read_text().splitlines()]
    assert count == 2
    assert {line["key"]: line["ttl_ms"] for line in lines} == {"masksmith:idempotent:b": 5, "masksmith:counts": 0}


def test_two_backups_at_once_are_refused(site, tmp_path):
    site.records.redis.set("masksmith:backup", "other", ex=60)
    with pytest.raises(InstallationError, match="another backup"):
        backup.back_up(site.records.redis, site.store, tmp_path / "backup")


@pytest.mark.parametrize("caller", ["backup", "sweep"])
def test_the_lock_of_a_dead_backup_expires_also_if_the_clock_is_set_back(site, tmp_path, caller):
    site.records.redis.set("masksmith:backup", "dead", ex=3660)
    if caller == "sweep":
        BlobReferences(site.records.redis, site.store).finish_deletions()
    else:
        with pytest.raises(InstallationError, match="another backup"):
            backup.back_up(site.records.redis, site.store, tmp_path / "backup")
    assert 0 < site.records.redis.ttl("masksmith:backup") <= 60


def test_a_backup_that_lost_its_lock_leaves_that_of_another(site, tmp_path, monkeypatch):
    """The lock is renewed meanwhile: neither the end nor a renewal touches the lock of another backup."""
    monkeypatch.setattr(backup, "BACKUP_LOCK_S", 0.1)

    def lose_lock(*_):
        site.records.redis.set("masksmith:backup", "other", ex=60)
        time.sleep(0.1)
        return [], ""

    monkeypatch.setattr(backup, "_save_records", lose_lock)
    with pytest.raises(InstallationError, match="too long"):
        backup.back_up(site.records.redis, site.store, tmp_path / "backup")
    assert site.records.redis.get("masksmith:backup") == "other"
    assert site.records.redis.ttl("masksmith:backup") > 50
