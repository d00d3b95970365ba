"""Counters of finished shards: what is counted as a shard, and under which device."""

import pytest
from support.leases import take

from masksmith_state.jobs.reports import ShardReport
from masksmith_state.jobs.shards import Shard
from masksmith_state.queue import BENCH_CPU_QUEUE, CPU_QUEUE, GPU_QUEUE
from masksmith_state.telemetry.counters import COUNTS, counts_by_labels
from masksmith_wire.benchmarks import BenchmarkOptions, BenchmarkPlan, PlannedCase
from masksmith_wire.documents import JobState

from .test_records import BAD, GOOD, expire, lapsed, plan


def test_shards_of_tensors_are_counted_and_written_files_are_not(records):
    cut = [Shard(tensor=0, first=0, last=2), Shard(tensor=0, first=0, last=2),
           *(Shard(tensor=0, first=0, last=0, file=number) for number in range(2))]  # fmt: skip
    job, _ = records.create(plan(), cut, "", "")
    for shard, report in enumerate((GOOD, BAD, ShardReport(), BAD)):
        assert records.complete(take(records, job, shard), report, 0.5)
    counts = counts_by_labels(records.redis.hgetall(COUNTS), "shards")
    assert counts == {("", "solved"): 1, ("", "failed"): 1}


@pytest.mark.parametrize(("queue", "device"), [(CPU_QUEUE, "cpu"), (GPU_QUEUE, "cuda")])
def test_a_shard_without_attempts_is_counted_under_its_device_and_a_file_is_not(records, queue, device):
    cut = [Shard(tensor=0, first=0, last=2), Shard(tensor=0, first=0, last=0, file=0)]
    job, _ = records.create(plan(), cut, "", "", queue=queue)
    for _ in cut:
        expire(records, records.schedule.take(queue, lease_s=60, attempts=1))
    assert lapsed(records) == [0, 1]
    assert records.schedule.take(queue, lease_s=60, attempts=1) is None
    assert records.state(job) is JobState.FAILED
    assert counts_by_labels(records.redis.hgetall(COUNTS), "shards") == {(device, "failed"): 1}


def test_a_case_without_attempts_is_not_counted_as_a_shard(records):
    benchmark = BenchmarkPlan(options=BenchmarkOptions(patterns=["2:4"]))
    job, _ = records.create(benchmark, [PlannedCase(case={})], queue=BENCH_CPU_QUEUE)
    expire(records, take(records, job, 0, attempts=1))
    assert take(records, job, 0, attempts=1) == "exhausted"
    assert counts_by_labels(records.redis.hgetall(COUNTS), "shards") == {}
