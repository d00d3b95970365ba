"""The completion notifier: requests that wait for the end of a job."""

import asyncio
import threading

import redis.asyncio

from masksmith_service.jobs.completion_notifier import CompletionNotifier
from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.shards import PlannedTensor, Shard
from masksmith_wire.documents import MasksOptions


def new_job(records):
    tensor = PlannedTensor(name="w", digest="0" * 64, dtype="F32", shape=[1, 4], start=80)
    return records.create(
        MasksPlan(options=MasksOptions(pattern="2:4"), tensors=[tensor]), [Shard(tensor=0, first=0, last=1)]
    )[0]


def run(url, scenario, stop_event=None):
    async def main():
        client = redis.asyncio.Redis.from_url(url, decode_responses=True)
        try:
            return await scenario(CompletionNotifier(client, stop_event or threading.Event()))
        finally:
            await client.aclose()

    return asyncio.run(main())


def test_all_waiting_requests_are_notified_when_a_job_ends_or_is_deleted(records, valkey, monkeypatch):
    monkeypatch.setattr("masksmith_service.jobs.completion_notifier.POLL_S", 3600.0)
    jobs = [new_job(records) for _ in range(3)]

    async def scenario(completions):
        waiting = [asyncio.ensure_future(completions.wait(job, 300.0)) for job in (*jobs, jobs[0])]
        await asyncio.sleep(0.5)
        assert not any(task.done() for task in waiting)
        for job in jobs[:2]:
            await asyncio.to_thread(records.cancel, job)
        assert await asyncio.gather(waiting[0], waiting[1], waiting[3]) == [True] * 3
        await asyncio.to_thread(records.delete, jobs[2])
        assert await waiting[2]

    run(valkey.url, scenario)


def test_a_job_that_has_ended_or_is_unknown_is_not_waited_for(records, valkey):
    job = new_job(records)
    records.cancel(job)

    async def scenario(completions):
        return await completions.wait(job, 3600.0), await completions.wait("none", 3600.0)

    assert run(valkey.url, scenario) == (True, True)


def test_waiting_ends_at_its_time_limit_and_when_the_service_closes(records, valkey):
    job, stop_event = new_job(records), threading.Event()

    async def scenario(completions):
        short = await completions.wait(job, 0.1)
        stop_event.set()
        return short, await completions.wait(job, 300.0)

    assert run(valkey.url, scenario, stop_event) == (False, False)


def test_a_lost_notification_is_replaced_by_polling(records, valkey, monkeypatch):
    monkeypatch.setattr("masksmith_service.jobs.completion_notifier.POLL_S", 0.2)
    monkeypatch.setattr("masksmith_service.jobs.completion_notifier.ENDED_CHANNEL", "another channel")
    job = new_job(records)

    async def scenario(completions):
        waiting = asyncio.ensure_future(completions.wait(job, 300.0))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(records.cancel, job)
        return await waiting

    assert run(valkey.url, scenario)


def test_a_notification_before_the_end_does_not_cause_polling_without_pause(records, valkey, monkeypatch):
    monkeypatch.setattr("masksmith_service.jobs.completion_notifier.POLL_S", 0.5)
    job = new_job(records)

    async def scenario(completions):
        waiting = asyncio.ensure_future(completions.wait(job, 300.0))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(records.redis.publish, "masksmith:ended", job)
        before = records.redis.info("commandstats")["cmdstat_hget"]["calls"]
        await asyncio.sleep(1.0)
        reads = records.redis.info("commandstats")["cmdstat_hget"]["calls"] - before
        await asyncio.to_thread(records.cancel, job)
        return reads, await waiting

    reads, ended = run(valkey.url, scenario)
    assert ended
    assert reads < 50
