"""Positions of queued jobs, compared with the order in which one worker really takes shards of equal length."""

import pytest

from masksmith_state.jobs.model import Admission
from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.reports import ShardReport
from masksmith_state.jobs.shards import PlannedTensor, Shard
from masksmith_state.keys import redis_key_of
from masksmith_state.queue import CPU_QUEUE, GPU_QUEUE
from masksmith_wire.documents import MasksOptions, QueuePosition, WorkerInfo
from masksmith_wire.priorities import Priority

DONE = ShardReport(objective=1.0, upper_bound=1.0, total_score=1.0)


def create(records, owner="ann", shards=1, priority=Priority.NORMAL, cost_s=1.0, queue=CPU_QUEUE):
    tensor = PlannedTensor(name="w", digest="0" * 64, dtype="F32", shape=[shards, 4], start=80)
    plan = MasksPlan(options=MasksOptions(pattern="2:4"), tensors=[tensor])
    cut = [Shard(tensor=0, first=row, last=row + 1, cost_s=cost_s) for row in range(shards)]
    return records.create(plan, cut, admission=Admission(owner=owner, priority=priority), queue=queue)[0]


def announce(records, slots=1, queue=CPU_QUEUE, name="w"):
    records.workers.announce(
        WorkerInfo(name=name, device="cpu", device_name="x", slots=slots, queues=[queue], version="1",
                   started_at="2026-01-01T00:00:00Z")
    )  # fmt: skip


def take(records):
    return records.schedule.take(CPU_QUEUE, lease_s=600, attempts=3, age_s=1e6, worker="w")


def taken_before(records, job):
    """Jobs and number of shards that are really taken before the job's first shard; a twin of the estimate."""
    leases = []
    while (lease := take(records)).job != job:
        leases.append(lease)
    return len({lease.job for lease in leases}), len(leases)


def test_the_only_job_is_next(records):
    job = create(records)
    assert records.schedule.position(job) == QueuePosition(jobs_ahead=0)
    announce(records)
    assert records.schedule.position(job) == QueuePosition(jobs_ahead=0, starts_in_s=0.0)


@pytest.mark.parametrize(("weight", "first"), [(1, "ann"), (1, "zoe"), (3, "zoe")])
def test_jobs_ahead_are_the_jobs_that_are_taken_before(records, weight, first):
    announce(records)
    records.redis.hset(redis_key_of("bob"), "weight", weight)
    create(records, first, 40)
    create(records, "bob", 6, Priority.INTERACTIVE)
    create(records, "bob", 3, Priority.BATCH)
    job = create(records, "bob", 5)
    before = records.schedule.position(job)
    jobs, shards = taken_before(records, job)
    assert before.jobs_ahead == jobs
    assert before.starts_in_s == pytest.approx(shards, abs=1.5)
    assert records.schedule.position(job).jobs_ahead >= 0


def test_jobs_of_one_priority_are_served_in_turn(records):
    announce(records)
    create(records, shards=50)
    for _ in range(10):
        take(records)
    job = create(records, shards=50)
    position = records.schedule.position(job)
    assert position.jobs_ahead == taken_before(records, job)[0]


def test_slots_and_shards_at_work_count(records):
    announce(records, slots=2)
    running = create(records, shards=2, cost_s=60.0)
    leases = [take(records), take(records)]
    job = create(records, "bob", 4)
    assert records.schedule.position(job).starts_in_s == pytest.approx(60, abs=5)
    create(records, "aaa", 1, Priority.INTERACTIVE, cost_s=20.0)
    assert records.schedule.position(running) is None
    records.complete(leases[0], DONE)
    assert records.schedule.position(job).starts_in_s < 60


def test_other_queues_and_idle_slots_do_not_count(records):
    create(records, shards=50, queue=GPU_QUEUE)
    announce(records, queue=GPU_QUEUE, name="gpu", slots=8)
    job = create(records, "bob")
    assert records.schedule.position(job) == QueuePosition(jobs_ahead=0)
    announce(records, slots=4)
    create(records, "bob", 1, Priority.INTERACTIVE)
    assert records.schedule.position(job) == QueuePosition(jobs_ahead=1, starts_in_s=0.0)


def test_a_long_queue_is_counted_up_to_a_bound(records):
    announce(records)
    for _ in range(110):
        create(records, priority=Priority.INTERACTIVE)
    job = create(records)
    assert records.schedule.position(job) == QueuePosition(jobs_ahead=100)


def test_positions_in_words():
    texts = {None: "", 0.2: ", starts soon", 0.6: ", starts in about 1 s", 90: ", starts in about 90 s",
             300: ", starts in about 5 min", 3600 * 3.2: ", starts in about 3 h 12 min"}  # fmt: skip
    for seconds, text in texts.items():
        assert str(QueuePosition(jobs_ahead=2, starts_in_s=seconds)) == f"2 jobs ahead{text}"
    assert str(QueuePosition(jobs_ahead=1)) == "1 job ahead"
    assert str(QueuePosition(jobs_ahead=0, starts_in_s=7)) == "next in the queue, starts in about 7 s"
