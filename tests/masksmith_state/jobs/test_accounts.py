"""Counted bytes of a key's jobs and uploads, which are zero again when all are deleted."""

import pytest

from masksmith_state.errors import UnreadableRecordError
from masksmith_state.jobs.model import Admission
from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.records import JOB_BYTES, PART_BYTES
from masksmith_state.jobs.shards import PlannedTensor, Shard
from masksmith_state.unreadable import entries
from masksmith_wire.documents import MasksOptions

TENSOR = PlannedTensor(name="w", digest="0" * 64, dtype="F32", shape=[8, 4], start=80)
PLAN = MasksPlan(options=MasksOptions(pattern="2:4"), tensors=[TENSOR])
SHARDS = [Shard(tensor=0, first=4 * part, last=4 * part + 4) for part in range(2)]
COUNTS = ("masksmith:owner:ann:bytes", "masksmith:owner:ann:record_bytes")


def create(records, key=""):
    return records.create(PLAN, SHARDS, key, "fingerprint", Admission(owner="ann"))[0]


def counts(records):
    return [int(records.redis.get(name) or 0) for name in COUNTS]


def test_a_job_is_counted_until_it_is_deleted(records):
    job = create(records)
    results, kept = counts(records)
    assert results > 0
    assert kept > JOB_BYTES + 2 * PART_BYTES
    records.delete(job)
    assert counts(records) == [0, 0]


@pytest.mark.parametrize("part", ["plan", "created_at", None])
@pytest.mark.parametrize("is_live", [True, False])
def test_a_job_that_is_set_aside_is_no_longer_counted(records, part, is_live):
    job, other = create(records), create(records)
    if not is_live:
        records.cancel(job)
        records.cancel(other)
    if part is None:
        records.redis.set(f"masksmith:job:{job}:shards", "no hash")
    else:
        records.redis.hset(f"masksmith:job:{job}", part, "{")
    records.set_aside(UnreadableRecordError(job, "cannot be read"))
    assert records.redis.zrange("masksmith:owner:ann:jobs", 0, -1) == [other]
    assert records.redis.zrange("masksmith:owner:ann:ids", 0, -1) == [other]
    records.delete(other)
    assert counts(records) == [0, 0]


def test_a_job_whose_counts_are_lost_lowers_nothing(records):
    job = create(records)
    before = counts(records)
    records.redis.set(f"masksmith:job:{job}", "no hash")
    records.set_aside(UnreadableRecordError(job, "cannot be read"))
    assert counts(records) == before


@pytest.mark.parametrize("is_live", [True, False])
def test_a_job_whose_record_is_lost_is_removed_from_all_indexes(records, is_live):
    """A live one by the next sweep, so that it uses up no limit; one that has ended when it expires."""
    job, other = create(records), create(records)
    if not is_live:
        records.cancel(job)
    records.redis.delete(f"masksmith:job:{job}")
    assert list(records.schedule.requeue_lapsed_shards()) == []
    assert records.delete(job) != is_live
    names = [*records.redis.scan_iter("masksmith:owner:*"), *records.redis.scan_iter("masksmith:fair:*")]
    indexes = ["masksmith:jobs", "masksmith:ids", "masksmith:live", "masksmith:finished", *names]
    members = {name: records.redis.zrange(name, 0, -1) for name in indexes if records.redis.type(name) == "zset"}
    members |= {name: records.redis.smembers(name) for name in indexes if records.redis.type(name) == "set"}
    assert job not in {member for found in members.values() for member in found}
    assert records.redis.smembers("masksmith:owner:ann:live") == {other}
    assert not list(records.redis.scan_iter(f"masksmith:job:{job}*"))
    assert entries(records.redis)[0]["name"] == job
    assert not records.delete(job)


@pytest.mark.parametrize("key", ["a", "x" * 200, "a:b *?[", "\u00e9\u4e2d"])
def test_an_idempotency_key_becomes_a_digest_in_redis(records, key):
    job = create(records, key)
    assert create(records, key) == job
    [stored] = records.redis.keys("masksmith:idempotency:*")
    assert stored.startswith("masksmith:idempotency:ann:")
    assert len(stored) == len("masksmith:idempotency:ann:") + 64
    assert int(stored.rpartition(":")[2], 16) >= 0
    records.delete(job)
    assert not records.redis.keys("masksmith:idempotency:*")
    assert create(records, key) != job


def test_a_deleted_job_leaves_the_idempotency_key_of_another(records):
    first = create(records, "a")
    records.redis.hset(records.redis.keys("masksmith:idempotency:*")[0], "id", "f" * 27)
    records.delete(first)
    assert records.redis.keys("masksmith:idempotency:*")
