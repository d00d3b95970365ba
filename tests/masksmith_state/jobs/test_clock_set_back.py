"""The broker's clock was set back by two hours: whatever it had promised for later lies that much further off."""

import pytest

from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.shards import PlannedTensor, Shard
from masksmith_state.jobs.sweeper import BACKLOG_PATIENCE_S, IDLE_PATIENCE_S
from masksmith_state.queue import CPU_QUEUE
from masksmith_wire.documents import MasksOptions

JUMP_S = 7200


@pytest.fixture
def job(records):
    tensor = PlannedTensor(name="w", digest="0" * 64, dtype="F32", shape=[4, 4], start=80)
    plan = MasksPlan(options=MasksOptions(pattern="2:4"), tensors=[tensor])
    return records.create(plan, [Shard(tensor=0, first=row, last=row + 1) for row in range(4)])[0]


def shift_queued(records, job):
    key = f"masksmith:job:{job}:queued"
    for shard, at in records.redis.hgetall(key).items():
        records.redis.hset(key, shard, float(at) + JUMP_S)


def test_sweeps_go_on(records):
    assert records.claim_sweep(60.0)
    records.redis.pexpire("masksmith:sweeper", JUMP_S * 1000)
    assert records.claim_sweep(60.0)
    assert not records.claim_sweep(60.0)


def test_what_merely_waits_in_the_queue_is_not_enqueued_again(records, job):
    records.redis.lpush(CPU_QUEUE, "{}")
    shift_queued(records, job)
    records.take(job, 0, lease_s=60, attempts=3)
    horizon = float(records.redis.get("masksmith:horizon"))
    key = f"masksmith:job:{job}:queued"
    for shard, at in records.redis.hgetall(key).items():
        records.redis.hset(key, shard, float(at) - JUMP_S)
    assert horizon > float(records.redis.hget(key, "1")) + BACKLOG_PATIENCE_S
    assert list(records.stranded(BACKLOG_PATIENCE_S, from_horizon=True)) == []


def test_a_lost_message_is_missed_after_the_usual_patience(records, job):
    shift_queued(records, job)
    assert list(records.stranded(IDLE_PATIENCE_S)) == []
    assert sorted(records.stranded(-0.001)) == [(job, shard) for shard in range(4)]


def test_the_lease_of_a_dead_worker_lapses_as_it_should(records, job):
    lease = records.take(job, 0, lease_s=20, attempts=3)
    key = f"masksmith:job:{job}:lease:0"
    records.redis.pexpire(key, JUMP_S * 1000)
    assert list(records.stranded(3600.0)) == []
    assert records.redis.pttl(key) <= 20_000
    assert records.renew(lease, 20)
