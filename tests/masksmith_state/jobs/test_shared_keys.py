"""A damaged key that many jobs share costs no job."""

import pytest
import redis

from masksmith_state.jobs.model import Admission
from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.reports import ShardReport
from masksmith_state.jobs.shards import PlannedTensor, Shard
from masksmith_state.jobs.shared_keys import DamagedBrokerError
from masksmith_state.jobs.sweeper import sweep
from masksmith_state.keys import redis_key_of
from masksmith_state.queue import CPU_QUEUE
from masksmith_state.unreadable import entries
from masksmith_wire.documents import MasksOptions

OWNER = "0123456789"
DONE = ShardReport(objective=1.0, upper_bound=1.0, total_score=1.0)
HEALED = ["masksmith:fence", "masksmith:lease-ms", "masksmith:counts", f"masksmith:fair:{CPU_QUEUE}:clocks"]
"""Keys without which jobs go on, hence also with damaged ones."""
NEEDED = [
    "masksmith:live",
    "masksmith:finished",
    "masksmith:uploads",
    f"masksmith:owner:{OWNER}:live",
    f"masksmith:fair:{CPU_QUEUE}:idle",
]


def create(records):
    tensor = PlannedTensor(name="w", digest="0" * 64, dtype="F32", shape=[2, 4], start=80)
    plan = MasksPlan(options=MasksOptions(pattern="2:4"), tensors=[tensor], uploads=["0" * 64])
    shards = [Shard(tensor=0, first=row, last=row + 1) for row in range(2)]
    job, _ = records.create(plan, shards, admission=Admission(owner=OWNER))
    return job


def take(records):
    return records.schedule.take(CPU_QUEUE, lease_s=60, attempts=3)


def spoil(client, key, value="{junk"):
    if client.type(key) == "hash" and key != redis_key_of(OWNER):
        for field in client.hkeys(key):
            client.hset(key, field, value)
    else:
        client.delete(key)
        client.set(key, value)


def finish(records):
    """Do all that is queued, as workers and sweepers would."""
    records.redis.delete("masksmith:sweeper")
    sweep(records, lambda queue, count: None, 60.0)
    while (lease := take(records)) is not None:
        assert records.complete(lease, DONE, 0.1)


@pytest.mark.parametrize("key", [*HEALED, redis_key_of(OWNER)])
def test_jobs_go_on_with_a_damaged_counter_or_key(records, key):
    job, lease = create(records), take(records)
    records.redis.hset(redis_key_of(OWNER), "weight", "junk")
    tokens = {take(records).token, lease.token}
    assert records.complete(lease, DONE, 0.1)
    spoil(records.redis, key)
    records.redis.delete(f"masksmith:job:{job}:lease:1")
    finish(records)
    assert records.state(job) == "succeeded"
    spoil(records.redis, key)
    other = create(records)
    tokens |= {take(records).token, take(records).token}
    assert len(tokens) == 4
    assert records.state(other) == "running"
    assert entries(records.redis) == []


def test_a_counter_of_another_type_stops_no_job(records):
    job = create(records)
    records.redis.delete("masksmith:counts", "masksmith:fence")
    records.redis.lpush("masksmith:counts", "x")
    records.redis.lpush("masksmith:fence", "x")
    finish(records)
    assert records.state(job) == "succeeded"


@pytest.mark.parametrize("key", NEEDED)
def test_no_job_is_set_aside_for_a_damaged_key_that_it_needs(records, key):
    job = create(records)
    spoil(records.redis, key)
    with pytest.raises(DamagedBrokerError, match=f"'{key}' is damaged: a string, expected a "):
        records.delete(job)
    assert records.read(job) is not None
    assert entries(records.redis) == []


def test_a_job_waits_while_a_key_that_it_needs_is_damaged(records):
    job = create(records)
    counter = f"masksmith:fair:{CPU_QUEUE}:aged"
    records.redis.set(counter, "junk")
    with pytest.raises(redis.RedisError):
        take(records)
    records.redis.delete(counter)
    finish(records)
    assert records.state(job) == "succeeded"
