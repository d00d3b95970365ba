import threading
from datetime import UTC, datetime

from support.processes import poll

from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.records import JobRecords
from masksmith_state.jobs.shards import PlannedTensor, Shard
from masksmith_state.jobs.sweeper import BACKLOG_PATIENCE_S, IDLE_PATIENCE_S, Sweeper, sweep
from masksmith_state.queue import BENCH_CPU_QUEUE, CPU_QUEUE, GPU_QUEUE
from masksmith_wire.benchmarks import BenchmarkOptions, BenchmarkPlan, PlannedCase
from masksmith_wire.documents import MasksOptions, WorkerInfo


def new_job(records, shards=2, queue=CPU_QUEUE):
    tensor = PlannedTensor(name="w", digest="0" * 64, dtype="F32", shape=[shards, 4], start=80)
    plan = MasksPlan(options=MasksOptions(pattern="2:4"), tensors=[tensor])
    job, _ = records.create(plan, [Shard(tensor=0, first=row, last=row + 1) for row in range(shards)], queue=queue)
    return job


def age(records, job, shard, seconds):
    key = f"masksmith:job:{job}:queued"
    records.redis.hset(key, str(shard), float(records.redis.hget(key, str(shard))) - seconds)


def sweep_now(records):
    records.redis.delete("masksmith:sweeper")
    found = []
    assert sweep(records, lambda job, shard, queue: found.append((job, shard)), 60.0) == len(found)
    return sorted(found)


def test_what_was_recorded_but_never_enqueued_is_put_back_soon_while_the_queue_is_empty(records):
    job = new_job(records)
    assert sweep_now(records) == []
    age(records, job, 1, IDLE_PATIENCE_S + 1)
    assert sweep_now(records) == [(job, 1)]
    assert sweep_now(records) == []


def test_a_shard_that_waits_in_a_long_queue_is_left_alone(records):
    job = new_job(records)
    records.redis.lpush(CPU_QUEUE, "{}")
    for shard in (0, 1):
        age(records, job, shard, 100_000)
    assert sweep_now(records) == []
    assert records.take(job, 0, lease_s=60, attempts=3).attempt == 1
    assert sweep_now(records) == []


def test_a_shard_that_later_ones_overtook_was_lost(records):
    lost, later = new_job(records), new_job(records)
    records.redis.lpush(CPU_QUEUE, "{}")
    age(records, lost, 0, BACKLOG_PATIENCE_S + 1)
    assert sweep_now(records) == []
    assert records.take(later, 0, lease_s=60, attempts=3).attempt == 1
    assert sweep_now(records) == [(lost, 0)]
    assert sweep_now(records) == []


def test_only_one_of_many_sweeps(records):
    job = new_job(records)
    records.redis.delete(f"masksmith:job:{job}:queued")
    found = []
    assert [sweep(records, lambda job, shard, queue: found.append((job, shard)), 60.0) for _ in range(3)] == [2, 0, 0]
    assert sorted(found) == [(job, 0), (job, 1)]


def test_the_thread_outlives_an_absent_broker(fragile_valkey):
    records = JobRecords(fragile_valkey.url)
    fragile_valkey.start()
    job = new_job(records, 1)
    records.redis.delete(f"masksmith:job:{job}:queued")
    fragile_valkey.stop()
    seen, found = threading.Event(), []

    def enqueue(*shard):
        found.append(shard)
        seen.set()

    sweeper = Sweeper(records, enqueue, 0.05)
    sweeper.start()
    try:
        assert not seen.wait(0.3)
        fragile_valkey.start()
        assert seen.wait(20)
        assert found == [(job, 0, CPU_QUEUE)]
    finally:
        sweeper.stop()
        records.redis.close()
    assert not sweeper.is_alive()


def test_every_queue_is_swept_for_itself(records):
    plan = BenchmarkPlan(options=BenchmarkOptions(patterns=["2:4"]))
    job, _ = records.create(plan, [PlannedCase(case={})], queue=BENCH_CPU_QUEUE)
    records.redis.lpush(BENCH_CPU_QUEUE, "{}")
    age(records, job, 0, BACKLOG_PATIENCE_S + 1)
    found = []

    def swept():
        records.redis.delete("masksmith:sweeper")
        sweep(records, lambda *part: found.append(part), 60.0)
        return found

    # That a shard of another queue was enqueued later and taken says nothing about this one.
    records.take(new_job(records), 0, lease_s=60, attempts=3)
    assert swept() == []
    later, _ = records.create(plan, [PlannedCase(case={})], queue=BENCH_CPU_QUEUE)
    records.take(later, 0, lease_s=60, attempts=3)
    assert swept() == [(job, 0, BENCH_CPU_QUEUE)]


def test_jobs_of_gpus_that_are_gone_go_to_processors(records):
    job = new_job(records, 1, GPU_QUEUE)
    alive = {"name": "gpu", "device": "cuda:0", "device_name": "any", "slots": 1, "version": "0"}
    records.workers.announce(WorkerInfo(queues=[GPU_QUEUE], started_at=datetime.now(UTC), **alive))
    records.redis.lpush(GPU_QUEUE, "{}")
    age(records, job, 0, IDLE_PATIENCE_S + 1)
    found = []

    def swept():
        records.redis.delete("masksmith:sweeper")
        sweep(records, lambda *part: found.append(part), 60.0)
        return found

    assert swept() == []
    records.workers.remove("gpu")
    assert swept() == [(job, 0, CPU_QUEUE)]


def test_an_unexpected_error_does_not_end_the_thread(records, caplog):
    calls = []

    def sweep_blobs():
        calls.append(1)
        raise KeyError("nothing expects this")

    sweeper = Sweeper(records, lambda *_: None, 0.01, sweep_blobs)
    sweeper.start()
    poll(lambda: len(calls) >= 3, 30)
    sweeper.stop()
    assert "the sweep failed" in caplog.text
