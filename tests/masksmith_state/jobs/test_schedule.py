"""Which queued shard is taken: shares of keys, priorities, ageing, long shards; and a slow twin of the decision."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from support.schedule_twin import ScheduleTwin

from masksmith_state.jobs.model import Admission
from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.reports import ShardReport
from masksmith_state.jobs.shards import PlannedTensor, Shard
from masksmith_state.keys import redis_key_of
from masksmith_state.queue import CPU_QUEUE, GPU_QUEUE
from masksmith_wire.documents import MasksOptions
from masksmith_wire.priorities import Priority

NEVER_S = 1e6
DONE = ShardReport(objective=1.0, upper_bound=1.0, total_score=1.0)


def create(records, owner="ann", shards=10, priority=Priority.NORMAL, cost_s=1.0, long=(), queue=CPU_QUEUE):
    tensor = PlannedTensor(name="w", digest="0" * 64, dtype="F32", shape=[shards, 4], start=80)
    plan = MasksPlan(options=MasksOptions(pattern="2:4"), tensors=[tensor])
    cut = [Shard(tensor=0, first=row, last=row + 1, cost_s=cost_s, is_long=row in long) for row in range(shards)]
    job, _ = records.create(plan, cut, admission=Admission(owner=owner, priority=priority), queue=queue)
    return job


def take(records, *, queue=CPU_QUEUE, age_s=NEVER_S, worker="w", slots=1, attempts=3):
    return records.schedule.take(queue, lease_s=600, attempts=attempts, age_s=age_s, worker=worker, slots=slots)


def set_weight(records, owner, weight):
    records.redis.hset(redis_key_of(owner), "weight", weight)


def taken_jobs(records, count, **options):
    leases = [take(records, **options) for _ in range(count)]
    return [lease.job for lease in leases if lease is not None]


def test_a_job_is_taken_in_the_order_of_its_shards(records):
    job = create(records, shards=12)
    assert [take(records).shard for _ in range(12)] == list(range(12))
    assert take(records) is None
    assert records.redis.hlen(f"masksmith:job:{job}:taken") == 12


def test_two_keys_with_equal_weight_share_equally_whatever_they_ask_for(records):
    many = {create(records, "ann", 100) for _ in range(8)}
    few = create(records, "bob", 400)
    taken = Counter(job == few for job in taken_jobs(records, 200))
    assert 90 <= taken[True] <= 110
    assert many


def test_a_key_with_weight_3_gets_three_times_as_much(records):
    set_weight(records, "bob", 3)
    create(records, "ann", 300)
    heavy = create(records, "bob", 300)
    taken = Counter(job == heavy for job in taken_jobs(records, 200))
    assert taken[True] == pytest.approx(3 * taken[False], rel=0.05)


def test_shares_are_of_seconds_not_of_shards(records):
    slow, quick = create(records, "ann", 300, cost_s=3.0), create(records, "bob", 300, cost_s=1.0)
    taken = Counter(taken_jobs(records, 200))
    assert taken[quick] == pytest.approx(3 * taken[slow], rel=0.05)


def test_a_small_job_is_taken_next_beside_thousands_of_shards_of_another_key(records):
    create(records, "ann", 5000)
    for _ in range(40):
        take(records)
    for _ in range(5):
        small = create(records, "bob", 1, cost_s=0.1)
        assert take(records).job == small
        take(records)


def test_a_key_that_was_idle_gets_no_extra_share(records):
    first = create(records, "bob", 1)
    big = create(records, "ann", 500)
    assert set(taken_jobs(records, 101)) == {first, big}
    late = create(records, "bob", 500)
    assert Counter(taken_jobs(records, 100))[late] == pytest.approx(50, abs=2)


def test_a_key_that_pauses_does_not_reset_its_share(records):
    create(records, "ann", 500)
    own = 0
    for _ in range(100):
        create(records, "bob", 1)
        own += take(records).job != ""
        taken = records.redis.zcard("masksmith:fair:masksmith.cpu:jobs:bob:normal")
    assert own == 100
    assert taken == pytest.approx(50, abs=5)


def test_what_a_shard_took_corrects_its_estimate(records):
    quick, slow = create(records, "ann", 200), create(records, "bob", 200)
    counts = Counter()
    for _ in range(100):
        lease = take(records)
        counts[lease.job] += 1
        if lease.job == slow:
            charged, at = records.redis.hget(f"masksmith:job:{slow}:taken", str(lease.shard)).split()
            records.redis.hset(f"masksmith:job:{slow}:taken", str(lease.shard), f"{charged} {float(at) - 4.0}")
        else:
            charged, at = records.redis.hget(f"masksmith:job:{quick}:taken", str(lease.shard)).split()
            records.redis.hset(f"masksmith:job:{quick}:taken", str(lease.shard), f"{charged} {float(at) - 1.0}")
        assert records.complete(lease, DONE)
    assert counts[quick] == pytest.approx(4 * counts[slow], rel=0.15)


def test_a_shard_without_an_attempt_left_charges_nothing(records):
    job = create(records, "ann", 3)
    taken = f"masksmith:job:{job}:taken"
    lease = take(records, attempts=1)
    charged, at = records.redis.hget(taken, "0").split()
    records.redis.hset(taken, "0", f"{charged} {float(at) - 60.0}")
    records.release(lease)
    assert list(records.schedule.requeue_lapsed_shards()) == [(job, 0)]
    before = records.redis.zscore("masksmith:fair:masksmith.cpu:owners", "ann")
    assert take(records, attempts=1).shard == 1
    assert records.reports(job)[0].error.code == "attempts_exhausted"
    charged, _ = records.redis.hget(taken, "1").split()
    assert float(charged) >= 60
    assert records.redis.zscore("masksmith:fair:masksmith.cpu:owners", "ann") == pytest.approx(before + float(charged))


def test_priorities_order_the_jobs_of_one_key(records):
    batch, normal, now = (create(records, shards=3, priority=each) for each in list(Priority)[::-1])
    assert taken_jobs(records, 9) == [now] * 3 + [normal] * 3 + [batch] * 3


def test_priorities_do_not_reach_beyond_a_key(records):
    now, batch = create(records, "ann", 50, Priority.INTERACTIVE), create(records, "bob", 50, Priority.BATCH)
    assert Counter(taken_jobs(records, 40)) == {now: 20, batch: 20}


def test_jobs_of_one_key_and_priority_share(records):
    big = create(records, shards=50)
    taken_jobs(records, 20)
    small = create(records, shards=1)
    assert taken_jobs(records, 2) == [small, big]


def test_a_job_that_waits_long_is_taken_every_other_time(records):
    create(records, shards=50, priority=Priority.INTERACTIVE)
    batch = create(records, shards=50, priority=Priority.BATCH)
    taken = [job == batch for job in taken_jobs(records, 40, age_s=0)]
    assert 9 <= sum(taken) <= 21
    assert True in taken[:4]


def test_a_batch_job_passes_an_unbroken_stream_of_interactive_ones(records):
    batch = create(records, shards=1, priority=Priority.BATCH)
    taken = []
    while batch not in taken:
        create(records, shards=1, priority=Priority.INTERACTIVE)
        taken.append(take(records, age_s=0).job)
    assert len(taken) < 5


def test_long_shards_leave_one_slot_of_a_worker_free(records):
    create(records, shards=4, long=range(4))
    first, second = take(records, slots=3), take(records, slots=3)
    assert (first.is_long, second.is_long, take(records, slots=3)) == (True, True, None)
    small = create(records, "bob", 1)
    assert take(records, slots=3).job == small
    assert take(records, worker="other", slots=2).is_long
    assert records.complete(first, DONE)
    assert take(records, slots=3).is_long


def test_a_worker_with_one_slot_takes_long_shards(records):
    create(records, shards=2, long=[0, 1])
    assert [take(records).shard, take(records).shard] == [0, 1]


def test_the_slot_of_a_long_shard_whose_worker_died_is_free_again(records):
    job = create(records, shards=2, long=[0, 1])
    lease = take(records, slots=2)
    assert take(records, slots=2) is None
    records.redis.delete(f"masksmith:job:{job}:lease:{lease.shard}")
    assert take(records, slots=2).shard == 1


@pytest.mark.parametrize("end", ["cancel", "delete"])
def test_an_ended_job_has_no_queued_shards(records, end):
    job, other = create(records, shards=5, long=[1]), create(records, "bob", 2)
    take(records)
    getattr(records, end)(job)
    assert set(taken_jobs(records, 9)) == {other}
    assert records.schedule.depth(CPU_QUEUE) == 0
    keys = records.redis.keys("masksmith:fair:*")
    assert {key.removeprefix("masksmith:fair:masksmith.cpu") for key in keys} <= {":clocks", ":idle"}


def test_a_shard_whose_worker_died_is_queued_again(records):
    job = create(records, shards=3, long=[0])
    lease = take(records)
    assert list(records.schedule.requeue_lapsed_shards()) == []
    records.redis.delete(f"masksmith:job:{job}:lease:{lease.shard}")
    assert list(records.schedule.requeue_lapsed_shards()) == [(job, lease.shard)]
    assert list(records.schedule.requeue_lapsed_shards()) == []
    again = take(records)
    assert (again.shard, again.attempt, again.is_long) == (lease.shard, 2, True)
    assert not records.complete(lease, DONE)
    assert records.complete(again, DONE)


def test_a_job_goes_to_another_queue_as_a_whole(records):
    job = create(records, shards=3, long=[2], queue=GPU_QUEUE)
    lease = take(records, queue=GPU_QUEUE)
    assert records.schedule.move_jobs(GPU_QUEUE, CPU_QUEUE) == [job]
    assert take(records, queue=GPU_QUEUE) is None
    assert (records.schedule.depth(GPU_QUEUE), records.schedule.depth(CPU_QUEUE)) == (0, 2)
    assert records.complete(lease, DONE)
    assert taken_jobs(records, 3) == [job, job]


def test_a_queue_needs_few_messages(records):
    create(records, shards=3)
    assert records.schedule.messages_wanted(CPU_QUEUE) == 3
    create(records, shards=5000)
    assert records.schedule.messages_wanted(CPU_QUEUE) == 16
    records.redis.lpush(CPU_QUEUE, *["{}"] * 10)
    assert records.schedule.messages_wanted(CPU_QUEUE) == 6
    assert take(records).messages_wanted == 6


def test_a_record_that_cannot_be_read_holds_nobody_up(records):
    bad, good = create(records, shards=2), create(records, shards=1)
    records.redis.delete(f"masksmith:job:{bad}:pending")
    records.redis.set(f"masksmith:job:{bad}:pending", "junk")
    assert taken_jobs(records, 3) == [good]
    assert records.read(bad) is None


OWNERS = ("ann", "bob", "cid")
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("create"),
            st.sampled_from(OWNERS),
            st.sampled_from(list(Priority)),
            st.integers(1, 4),
            st.sampled_from([0.25, 1.0, 3.0]),
            st.sets(st.integers(0, 3)),
        ),
        st.tuples(st.just("take"), st.sampled_from([1, 2, 3])),
        st.tuples(st.just("cancel"), st.integers(0, 5)),
        st.tuples(st.just("age")),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, weights=st.tuples(*[st.sampled_from([0.5, 1.0, 3.0])] * 3), age=st.booleans())
def test_the_decision_is_that_of_its_slow_twin(records, steps, weights, age):
    records.redis.flushall()
    for owner, weight in zip(OWNERS, weights, strict=True):
        set_weight(records, owner, weight)
    twin, jobs, age_s = ScheduleTwin(dict(zip(OWNERS, weights, strict=True)), ages=age), [], 0 if age else NEVER_S
    for step in steps:
        match step:
            case ("create", owner, priority, shards, cost_s, long):
                jobs.append(create(records, owner, shards, priority, cost_s, long))
                twin.create(jobs[-1], owner, priority, [(cost_s, row in long) for row in range(shards)])
            case ("take", slots):
                lease = take(records, slots=slots, worker=f"w{slots}", age_s=age_s)
                taken = None if lease is None else (lease.job, lease.shard)
                assert taken == twin.take(f"w{slots}", slots)
            case ("cancel", number) if number < len(jobs):
                records.cancel(jobs[number])
                twin.cancel(jobs[number])
