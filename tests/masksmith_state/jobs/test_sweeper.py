import threading
from datetime import UTC, datetime

from support.leases import take
from support.processes import poll

from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.records import JobRecords
from masksmith_state.jobs.shards import PlannedTensor, Shard
from masksmith_state.jobs.sweeper import Sweeper, sweep
from masksmith_state.queue import BENCH_CPU_QUEUE, CPU_QUEUE, GPU_QUEUE
from masksmith_wire.benchmarks import BenchmarkOptions, BenchmarkPlan, PlannedCase
from masksmith_wire.documents import MasksOptions, WorkerInfo


def new_job(records, shards=2, queue=CPU_QUEUE):
    tensor = PlannedTensor(name="w", digest="0" * 64, dtype="F32", shape=[shards, 4], start=80)
    plan = MasksPlan(options=MasksOptions(pattern="2:4"), tensors=[tensor])
    job, _ = records.create(plan, [Shard(tensor=0, first=row, last=row + 1) for row in range(shards)], queue=queue)
    return job


def sweep_now(records):
    records.redis.delete("masksmith:sweeper")
    sent = {}
    sweep(records, sent.__setitem__, 60.0)
    return sent


def test_a_job_whose_messages_were_never_sent_gets_them(records):
    new_job(records)
    assert sweep_now(records) == {CPU_QUEUE: 2}


def test_a_queue_with_messages_for_its_shards_gets_no_more(records):
    new_job(records)
    records.redis.lpush(CPU_QUEUE, "{}", "{}")
    assert sweep_now(records) == {}
    records.redis.rpop(CPU_QUEUE)
    assert sweep_now(records) == {CPU_QUEUE: 1}


def test_a_queue_without_shards_gets_no_messages(records):
    job = new_job(records)
    for shard in (0, 1):
        take(records, job, shard)
    assert sweep_now(records) == {}


def test_a_shard_whose_lease_has_lapsed_gets_a_message(records):
    job = new_job(records)
    for shard in (0, 1):
        take(records, job, shard)
    records.redis.delete(f"masksmith:job:{job}:lease:1")
    assert sweep_now(records) == {CPU_QUEUE: 1}
    assert records.schedule.take(CPU_QUEUE, lease_s=60, attempts=3).shard == 1


def test_only_one_of_many_sweeps(records):
    new_job(records)
    sent = []
    for _ in range(3):
        sweep(records, lambda queue, count: sent.append((queue, count)), 60.0)
    assert sent == [(CPU_QUEUE, 2)]


def test_the_thread_outlives_an_absent_broker(fragile_valkey):
    records = JobRecords(fragile_valkey.url)
    fragile_valkey.start()
    new_job(records, 1)
    fragile_valkey.stop()
    seen, found = threading.Event(), []

    def send_messages(*message):
        found.append(message)
        seen.set()

    sweeper = Sweeper(records, send_messages, 0.05)
    sweeper.start()
    try:
        assert not seen.wait(0.3)
        fragile_valkey.start()
        assert seen.wait(300)
        assert found[0] == (CPU_QUEUE, 1)
    finally:
        sweeper.stop()
        records.redis.close()
    assert not sweeper.is_alive()


def test_every_queue_gets_its_own_messages(records):
    plan = BenchmarkPlan(options=BenchmarkOptions(patterns=["2:4"]))
    records.create(plan, [PlannedCase(case={})], queue=BENCH_CPU_QUEUE)
    new_job(records)
    assert sweep_now(records) == {CPU_QUEUE: 2, BENCH_CPU_QUEUE: 1}


def test_jobs_of_gpus_that_are_gone_go_to_processors(records):
    new_job(records, 1, GPU_QUEUE)
    alive = {"name": "gpu", "device": "cuda:0", "device_name": "any", "slots": 1, "version": "0"}
    records.workers.announce(WorkerInfo(queues=[GPU_QUEUE], started_at=datetime.now(UTC), **alive))
    assert sweep_now(records) == {GPU_QUEUE: 1}
    records.workers.remove("gpu")
    assert sweep_now(records) == {CPU_QUEUE: 1}


def test_an_unexpected_error_does_not_end_the_thread(records, caplog):
    calls = []

    def sweep_blobs():
        calls.append(1)
        raise KeyError("nothing expects this")

    sweeper = Sweeper(records, lambda *_: None, 0.01, sweep_blobs)
    sweeper.start()
    poll(lambda: len(calls) >= 3)
    sweeper.stop()
    assert "the sweep failed" in caplog.text
