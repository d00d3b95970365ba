"""Waiting for jobs that end."""

import asyncio
import threading
import time

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


def run(url, story, closing=None):
    async def main():
        client = redis.asyncio.Redis.from_url(url, decode_responses=True)
        try:
            return await story(CompletionNotifier(client, closing or threading.Event()))
        finally:
            await client.aclose()

    return asyncio.run(main())


def test_everybody_who_waits_hears_of_the_end_at_once(records, valkey, monkeypatch):
    monkeypatch.setattr("masksmith_service.jobs.completion_notifier.POLL_S", 20.0)
    jobs = [new_job(records) for _ in range(3)]

    async def story(completions):
        waiting = [asyncio.ensure_future(completions.wait(job, 15.0)) for job in (*jobs, jobs[0])]
        await asyncio.sleep(0.5)
        assert not any(task.done() for task in waiting)
        for job in jobs[:2]:
            await asyncio.to_thread(records.cancel, job)
        begun = time.monotonic()
        assert await asyncio.gather(waiting[0], waiting[1], waiting[3]) == [True] * 3
        assert time.monotonic() - begun < 10
        await asyncio.to_thread(records.delete, jobs[2])
        assert await waiting[2]

    run(valkey.url, story)


def test_a_job_that_is_over_or_unknown_is_not_waited_for(records, valkey):
    job = new_job(records)
    records.cancel(job)

    async def story(completions):
        return await completions.wait(job, 30.0), await completions.wait("none", 30.0)

    begun = time.monotonic()
    assert run(valkey.url, story) == (True, True)
    assert time.monotonic() - begun < 10


def test_patience_ends_and_so_does_the_service(records, valkey):
    job, closing = new_job(records), threading.Event()

    async def story(completions):
        short = await completions.wait(job, 0.1)
        closing.set()
        return short, await completions.wait(job, 30.0)

    assert run(valkey.url, story, closing) == (False, False)


def test_what_nobody_heard_is_found_by_looking(records, valkey, monkeypatch):
    monkeypatch.setattr("masksmith_service.jobs.completion_notifier.POLL_S", 0.2)
    monkeypatch.setattr("masksmith_service.jobs.completion_notifier.ENDED", "another channel")
    job = new_job(records)

    async def story(completions):
        waiting = asyncio.ensure_future(completions.wait(job, 15.0))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(records.cancel, job)
        return await waiting

    assert run(valkey.url, story)


def test_news_that_was_premature_is_no_reason_to_look_without_pause(records, valkey, monkeypatch):
    monkeypatch.setattr("masksmith_service.jobs.completion_notifier.POLL_S", 0.5)
    job = new_job(records)

    async def story(completions):
        waiting = asyncio.ensure_future(completions.wait(job, 15.0))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(records.redis.publish, "masksmith:ended", job)
        before = records.redis.info("commandstats")["cmdstat_hget"]["calls"]
        await asyncio.sleep(1.0)
        looks = records.redis.info("commandstats")["cmdstat_hget"]["calls"] - before
        await asyncio.to_thread(records.cancel, job)
        return looks, await waiting

    looks, ended = run(valkey.url, story)
    assert ended
    assert looks < 50
