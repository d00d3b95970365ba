"""The broker's clock was set back by two hours, so that stored times are in the future."""

import time

import pytest
from support.leases import take

from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.reports import ShardReport
from masksmith_state.jobs.shards import PlannedTensor, Shard
from masksmith_state.queue import CPU_QUEUE
from masksmith_wire.documents import MasksOptions

JUMP_S = 7200


@pytest.fixture
def job(records):
    tensor = PlannedTensor(name="w", digest="0" * 64, dtype="F32", shape=[4, 4], start=80)
    plan = MasksPlan(options=MasksOptions(pattern="2:4"), tensors=[tensor])
    return records.create(plan, [Shard(tensor=0, first=row, last=row + 1) for row in range(4)])[0]


def test_sweeps_go_on(records):
    assert records.claim_sweep(60.0)
    records.redis.pexpire("masksmith:sweeper", JUMP_S * 1000)
    assert records.claim_sweep(60.0)
    assert not records.claim_sweep(60.0)


def test_a_job_that_waits_since_a_future_time_is_taken(records, job):
    records.redis.zadd("masksmith:fair:masksmith.cpu:waiting:", {job: time.time() + JUMP_S})
    assert records.schedule.take(CPU_QUEUE, lease_s=60, attempts=3).shard == 0


def test_a_shard_that_was_taken_at_a_later_time_costs_nothing(records, job):
    lease = take(records, job, 0, lease_s=60, attempts=3)
    records.redis.hset(f"masksmith:job:{job}:taken", "0", f"1.0 {time.time() + JUMP_S}")
    assert records.complete(lease, ShardReport())
    assert float(records.redis.hget(f"masksmith:job:{job}", "virtual_time")) == 0


def test_the_lease_of_a_dead_worker_lapses_as_it_should(records, job):
    lease = take(records, job, 0, lease_s=20, attempts=3)
    key = f"masksmith:job:{job}:lease:0"
    records.redis.pexpire(key, JUMP_S * 1000)
    assert list(records.schedule.requeue_lapsed_shards()) == []
    assert records.redis.pttl(key) <= 20_000
    assert records.renew(lease, 20)
