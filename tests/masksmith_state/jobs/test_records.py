import threading
import time

import pytest
from support.leases import take
from support.processes import poll

from masksmith_state.errors import BrokerFullError
from masksmith_state.jobs.model import Admission, Lease
from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.records import JOB_BYTES, PART_BYTES, JobRecords, record_bytes
from masksmith_state.jobs.redis_keys import events_key, job_key
from masksmith_state.jobs.reports import ShardReport
from masksmith_state.jobs.shards import PlannedTensor, Shard
from masksmith_state.scripts import Scripts
from masksmith_wire.documents import JobState, MasksOptions
from masksmith_wire.errors import TensorError
from masksmith_wire.names import JobDescription

GOOD = ShardReport(
    result="f" * 64, status="optimal", objective=1.5, upper_bound=1.5, total_score=2.0, kept=2, entries=4
)
BAD = ShardReport(error=TensorError(code="invalid_scores", message="tensor 'w': NaN at [0, 1]", index=[0, 1]))


def plan(rows=2):
    tensor = PlannedTensor(name="w", digest="0" * 64, dtype="F32", shape=[rows, 4], start=80)
    return MasksPlan(options=MasksOptions(pattern="2:4", solver="top-k"), tensors=[tensor])


def create(records, shards=2, key="", fingerprint=""):
    cut = [Shard(tensor=0, first=row, last=row + 1) for row in range(shards)]
    return records.create(plan(shards), cut, key, fingerprint)


def test_texts_are_counted_in_bytes(records):
    assert record_bytes({"plan": "a" * 1000}, ["\U0001f600" * 1000]) == JOB_BYTES + PART_BYTES + 5000
    wanted = []
    tensor = plan().tensors[0]
    for name in ("n" * 1000, "\u4e2d" * 1000):
        renamed = plan().model_copy(update={"tensors": [tensor.model_copy(update={"name": name})]})
        job, _ = records.create(renamed, [Shard(tensor=0, first=0, last=2)], require_room=wanted.append)
    assert wanted[1] - wanted[0] == 2000
    assert wanted[1] > records.redis.hstrlen(job_key(job), "plan")


def test_no_job_is_created_without_room(records):
    def refuse(size):
        raise BrokerFullError(1, size)

    with pytest.raises(BrokerFullError):
        records.create(plan(), [Shard(tensor=0, first=0, last=2)], require_room=refuse)
    assert records.live_count() == 0


def new_job(records, shards=2):
    job, new = create(records, shards)
    assert new
    return job


def events(records, job):
    answer = records.redis.xrange(events_key(job))
    return [(fields["event"], fields["data"]) for _, fields in answer]


def expire(records, lease):
    assert records.redis.delete(f"masksmith:job:{lease.job}:lease:{lease.shard}")


def lapsed(records):
    return sorted(shard for _, shard in records.schedule.requeue_lapsed_shards())


def test_a_job_is_written_whole(records):
    job = new_job(records, 12)
    record = records.read(job)
    assert (record.state, record.done, record.total, record.kind) == (JobState.QUEUED, 0, 12, "masks")
    assert record.plan == plan(12)
    assert abs(record.created_at.timestamp() - time.time()) < 60
    assert (record.started_at, record.finished_at) == (None, None)
    assert list(records.shards(job)) == list(range(12))
    assert records.shard(job, 11) == Shard(tensor=0, first=11, last=12)
    assert records.shard(job, 12) is None
    assert records.live_count() == 1
    assert events(records, job) == [("state", '{"state":"queued"}')]


def test_an_unknown_job_is_not_found_by_any_operation(records):
    assert records.read("nope") is None
    assert records.state("nope") is None
    assert (records.shards("nope"), records.reports("nope")) == ({}, {})
    assert not records.cancel("nope")
    assert not records.delete("nope")
    assert take(records, "nope", 0) == "closed"


def test_life_of_a_job(records):
    job = new_job(records)
    first = take(records, job, 0)
    assert (first.attempt, records.state(job)) == (1, JobState.RUNNING)
    assert records.complete(first, GOOD)
    assert (records.read(job).done, records.state(job)) == (1, JobState.RUNNING)
    assert records.complete(take(records, job, 1), GOOD)
    record = records.read(job)
    assert (record.state, record.done) == (JobState.SUCCEEDED, 2)
    assert record.created_at <= record.started_at <= record.finished_at
    assert records.reports(job) == {0: GOOD, 1: GOOD}
    assert records.live_count() == 0
    assert events(records, job) == [
        ("state", '{"state":"queued"}'),
        ("state", '{"state":"running"}'),
        ("progress", '{"done":1,"total":2}'),
        ("progress", '{"done":2,"total":2}'),
        ("state", '{"state":"succeeded"}'),
    ]


def test_one_failure_fails_the_job_once_all_shards_are_done(records):
    job = new_job(records)
    assert records.complete(take(records, job, 0), BAD)
    assert records.state(job) is JobState.RUNNING
    assert records.complete(take(records, job, 1), GOOD)
    assert records.state(job) is JobState.FAILED
    assert records.reports(job) == {0: BAD, 1: GOOD}


def test_the_same_idempotency_key_gives_the_same_job(records):
    job, _ = create(records, key="k", fingerprint="a")
    assert create(records, key="k", fingerprint="a") == (job, False)
    assert create(records, key="k", fingerprint="b") is None
    assert records.live_count() == 1
    assert create(records, key="other", fingerprint="a")[1]


def test_the_key_of_a_deleted_job_makes_a_new_one(records):
    job, _ = create(records, key="k", fingerprint="a")
    records.delete(job)
    again, new = create(records, key="k", fingerprint="b")
    assert new
    assert records.state(again) is JobState.QUEUED
    assert create(records, key="k", fingerprint="b") == (again, False)


def test_of_many_equal_requests_at_once_one_makes_the_job(records, valkey):
    barrier, made = threading.Barrier(8), []

    def request():
        mine = JobRecords(valkey.url)
        barrier.wait()
        made.append(create(mine, key="k", fingerprint="a"))
        mine.redis.close()

    threads = [threading.Thread(target=request) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({job for job, _ in made}) == 1
    assert sorted(new for _, new in made) == [False] * 7 + [True]


def test_a_creation_sent_twice_because_its_answer_was_lost_changes_nothing(records):
    scripts = Scripts(records.redis, "masksmith_state.jobs")
    args = ["1" * 27, '{"kind":"masks"}', '["{}","{}"]', "", "", "", -1, -1, -1, -1, "[]", "", 0, 0, "[]", "[]"]
    assert scripts.run("create", *args) == args[0]
    records.complete(take(records, args[0], 0), GOOD)
    assert scripts.run("create", *args) == args[0]
    assert records.redis.hget(f"masksmith:job:{args[0]}", "done") == "1"
    assert take(records, args[0], 0) == "done"


def test_a_shard_has_one_lease(records):
    job = new_job(records)
    lease = take(records, job, 0)
    assert isinstance(lease, Lease)
    assert take(records, job, 0) == "held"
    assert take(records, job, 1).token != lease.token
    records.release(lease)
    assert take(records, job, 0).attempt == 2


def test_a_completed_shard_is_done(records):
    job = new_job(records)
    lease = take(records, job, 0)
    assert records.complete(lease, GOOD)
    assert not records.complete(lease, GOOD)
    assert take(records, job, 0) == "done"
    assert records.read(job).done == 1


def test_a_lease_lapses_unless_it_is_renewed(records):
    job = new_job(records)
    lease, key = take(records, job, 0, lease_s=60), f"masksmith:job:{job}:lease:0"
    assert 0 < records.redis.pttl(key) <= 60_000
    records.redis.pexpire(key, 30_000)
    assert records.renew(lease, 60)
    assert records.redis.pttl(key) > 30_000
    assert take(records, job, 0) == "held"
    assert records.renew(lease, 0.001)
    again = poll(lambda: (found := take(records, job, 0)) != "held" and found)
    assert again.attempt == 2
    assert not records.renew(lease, 60)


def test_the_holder_of_an_old_lease_cannot_complete_the_shard(records):
    job = new_job(records, 1)
    late = take(records, job, 0)
    expire(records, late)
    now = take(records, job, 0)
    assert int(now.token) > int(late.token)
    assert not records.renew(late, 60)
    records.release(late)
    assert not records.complete(late, BAD)
    assert take(records, job, 0) == "held"
    assert records.reports(job) == {}
    assert records.complete(now, GOOD)
    assert records.state(job) is JobState.SUCCEEDED
    assert not records.complete(late, BAD)
    assert records.reports(job) == {0: GOOD}


def test_a_lapsed_lease_cannot_complete_a_shard_that_nobody_has_taken_again(records):
    job = new_job(records, 1)
    lease = take(records, job, 0)
    expire(records, lease)
    assert not records.complete(lease, GOOD)
    assert records.read(job).done == 0


def test_attempts_are_counted_when_taken_and_end_in_a_report(records):
    job = new_job(records)
    for attempt in (1, 2):
        lease = take(records, job, 0, attempts=2)
        assert lease.attempt == attempt
        expire(records, lease)
    assert take(records, job, 0, attempts=2) == "exhausted"
    assert take(records, job, 0, attempts=2) == "done"
    report = records.reports(job)[0]
    assert report.error.code == "attempts_exhausted"
    assert "2 times" in report.error.message
    assert records.complete(take(records, job, 1), GOOD)
    record = records.read(job)
    assert (record.state, record.done) == (JobState.FAILED, 2)


def test_the_last_shard_exhausted_closes_the_job(records):
    job = new_job(records, 1)
    expire(records, take(records, job, 0, attempts=1))
    assert take(records, job, 0, attempts=1) == "exhausted"
    assert records.state(job) is JobState.FAILED
    assert events(records, job)[-1] == ("state", '{"state":"failed"}')


def test_a_released_attempt_is_not_counted(records):
    job = new_job(records, 1)
    for _ in range(5):
        lease = take(records, job, 0, attempts=2)
        assert lease.attempt == 1
        records.release(lease, forget_attempt=True)
    assert lapsed(records) == [0]


def test_cancel_is_terminal_at_once_and_idempotent(records):
    job = new_job(records, 3)
    assert records.complete(take(records, job, 0), GOOD)
    lease = take(records, job, 1)
    assert records.cancel(job)
    record = records.read(job)
    assert (record.state, record.done, record.total) == (JobState.CANCELED, 1, 3)
    assert not records.renew(lease, 60)
    assert not records.complete(lease, GOOD)
    assert take(records, job, 2) == "closed"
    assert records.cancel(job)
    assert records.read(job) == record
    assert records.reports(job) == {0: GOOD}
    assert lapsed(records) == []
    assert [data for kind, data in events(records, job) if kind == "state"][-1] == '{"state":"canceled"}'
    assert records.live_count() == 0


def test_canceling_a_finished_job_changes_nothing(records):
    job = new_job(records, 1)
    records.complete(take(records, job, 0), GOOD)
    before = records.read(job), events(records, job)
    assert records.cancel(job)
    assert (records.read(job), events(records, job)) == before


@pytest.mark.parametrize("live", [True, False])
def test_delete_leaves_nothing(records, live):
    job = new_job(records, 2)
    lease = take(records, job, 0)
    if not live:
        records.complete(lease, GOOD)
        records.complete(take(records, job, 1), GOOD)
    assert records.delete(job)
    assert not records.delete(job)
    assert records.read(job) is None
    assert not records.complete(lease, GOOD)
    assert not records.renew(lease, 60)
    assert take(records, job, 1) == "closed"
    assert records.ids_newest_first(None, 10) == []
    records.release(lease)
    assert records.redis.keys(f"*{job}*") == []
    assert records.find_ids(job[:4], None, 1) == records.find_ids(job[:4], "", 1) == []


def test_only_shards_that_nobody_holds_are_queued_again(records):
    job = new_job(records, 4)
    assert lapsed(records) == []
    dead, held = take(records, job, 0), take(records, job, 1)
    done = take(records, job, 2)
    records.complete(done, GOOD)
    expire(records, dead)
    assert lapsed(records) == [0]
    assert lapsed(records) == []
    records.release(held)
    assert lapsed(records) == [1]


def test_shards_of_every_job_are_queued_again(records):
    jobs = [new_job(records, 10), new_job(records, 5)]
    for job in jobs:
        for shard in records.shards(job):
            expire(records, take(records, job, shard))
    assert sorted(records.schedule.requeue_lapsed_shards()) == sorted(
        (job, shard) for job in jobs for shard in records.shards(job)
    )


def test_one_sweeper_a_period(records):
    assert records.claim_sweep(60.0)
    assert not records.claim_sweep(60.0)
    records.redis.delete("masksmith:sweeper")
    assert records.claim_sweep(60.0)


def test_summaries_are_newest_first_and_paged(records):
    jobs = [new_job(records, 1) for _ in range(5)]
    found, after = [], None
    while page := records.ids_newest_first(after, 2):
        found += [row["id"] for row in records.summaries(page)]
        after = page[-1]
    assert found == jobs[::-1]
    assert records.summaries([jobs[-1]])[0] | {"created_at": ""} == {
        "id": jobs[-1], "owner": "", "name": "", "labels": {},
        "kind": "masks", "state": "queued", "pattern": "2:4", "solver": "top-k", "created_at": "",
        "finished_at": None, "done": "0", "total": "1",
    }  # fmt: skip


def test_jobs_have_names_and_labels(records):
    description = JobDescription(name="llama, 2:4", labels={"team": "vision"})
    job, _ = records.create(plan(2), [Shard(tensor=0, first=0, last=2)], description=description)
    record, row = records.read(job), records.summaries([job])[0]
    assert (record.name, record.labels) == (row["name"], row["labels"]) == ("llama, 2:4", {"team": "vision"})


def test_summaries_leave_out_jobs_with_damaged_labels(records):
    jobs = [new_job(records, 1) for _ in range(3)]
    records.redis.hset(job_key(jobs[1]), "labels", '{"team":')
    assert [row["id"] for row in records.summaries(jobs)] == [jobs[0], jobs[2]]


def test_summaries_end_at_a_time(records):
    jobs = [new_job(records, 1) for _ in range(3)]
    until = records.read(jobs[1]).created_at
    assert records.ids_newest_first(None, 5, until=until) == [jobs[1], jobs[0]]
    assert records.ids_newest_first(jobs[1], 5, until=until) == [jobs[0]]


def test_ids_are_found_by_their_beginning(records):
    shard = [Shard(tensor=0, first=0, last=2)]
    of_ann, of_bob = (records.create(plan(2), shard, admission=Admission(owner=owner))[0] for owner in ("ann", "bob"))
    assert records.find_ids(of_ann[:4], None, 5) == sorted([of_ann, of_bob])
    assert len(records.find_ids(of_ann[:4], None, 1)) == 1
    assert records.find_ids(of_ann[:4], "ann", 5) == [of_ann]
    assert records.find_ids(of_ann[:20], None, 5) == [of_ann]
    assert records.find_ids("f" * 11, None, 5) == []


def test_paging_goes_on_where_a_deleted_job_was(records):
    jobs = [new_job(records, 1) for _ in range(4)]
    records.redis.zadd("masksmith:jobs", {jobs[3]: time.time() + 5})
    records.delete(jobs[2])
    assert records.ids_newest_first(jobs[2], 10) == [jobs[1], jobs[0]]
    assert records.ids_newest_first("no such job", 10) == []


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_report_with_any_numbers_is_read_back_unchanged(records, value):
    job = new_job(records, 1)
    assert records.complete(take(records, job, 0), GOOD.model_copy(update={"objective": value}))
    assert repr(records.reports(job)[0].objective) == repr(value)
