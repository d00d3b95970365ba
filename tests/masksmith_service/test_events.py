"""Following the events of a job: the last event arrives, whenever the job ends."""

import asyncio
import threading

import pytest
import redis.asyncio

from masksmith_service.jobs import events
from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.redis_keys import events_key
from masksmith_state.jobs.shards import PlannedTensor, Shard
from masksmith_wire.documents import MasksOptions

BETWEEN = ("has_ended", "_read")


@pytest.fixture
def job(records):
    tensor = PlannedTensor(name="w", digest="0" * 64, dtype="F32", shape=[1, 4], start=80)
    plan = MasksPlan(options=MasksOptions(pattern="2:4"), tensors=[tensor])
    return records.create(plan, [Shard(tensor=0, first=0, last=1)])[0]


async def always():
    return True


def states(url, job, after="0-0"):
    async def collect():
        client = redis.asyncio.Redis.from_url(url, decode_responses=True)
        try:
            stream = events.follow(client, job, threading.Event(), always, after)
            return [event.data["state"] async for event in stream if event.kind == "state"]
        finally:
            await client.aclose()

    return asyncio.run(asyncio.wait_for(collect(), 300))


@pytest.mark.parametrize("step", BETWEEN)
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_job_that_ends_between_two_steps_of_the_loop_still_sends_its_last_event(
    records, valkey, job, monkeypatch, step, call
):
    monkeypatch.setattr(events, "BLOCK_MS", 20)
    original, calls = getattr(events, step), []

    async def then_cancel(*arguments):
        result = await original(*arguments)
        calls.append(arguments)
        if len(calls) == call:
            await asyncio.to_thread(records.cancel, job)
        return result

    monkeypatch.setattr(events, step, then_cancel)
    assert states(valkey.url, job) == ["queued", "canceled"]


def test_nothing_follows_the_last_event_of_an_ended_job(records, valkey, job):
    records.cancel(job)
    assert states(valkey.url, job) == ["queued", "canceled"]
    assert states(valkey.url, job, after="9999999999999-0") == []


def test_a_deleted_job_has_no_events(records, valkey, job):
    records.delete(job)
    assert states(valkey.url, job) == []


def test_unreadable_events_are_passed_over_once(records, valkey, job, monkeypatch, caplog):
    """More than one read returns at a time, and nothing after them: the stream must neither stop nor repeat."""
    monkeypatch.setattr(events, "BLOCK_MS", 20)
    client = redis.Redis.from_url(valkey.url)
    for number in range(300):
        client.xadd(events_key(job), {"event": "state", "data": "not JSON" if number % 2 else "[" * 100_000})
    reads, read = [], events._read

    async def counted(*arguments):
        reads.append(arguments)
        if len(reads) == 6:
            await asyncio.to_thread(records.cancel, job)
        return await read(*arguments)

    monkeypatch.setattr(events, "_read", counted)
    assert states(valkey.url, job) == ["queued", "canceled"]
    assert sum("cannot be read" in record.message for record in caplog.records) == 300


def test_events_end_without_an_error_when_the_broker_does_not_answer(records, valkey, job, monkeypatch, caplog):
    read, reads = events._read, []

    async def read_once(*arguments):
        reads.append(arguments)
        if len(reads) == 2:
            raise redis.ConnectionError("no answer")
        return await read(*arguments)

    monkeypatch.setattr(events, "_read", read_once)
    assert states(valkey.url, job) == ["queued"]
    assert f"the events of job {job} end early: no answer" in caplog.text
