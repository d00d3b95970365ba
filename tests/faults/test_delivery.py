"""Messages that come twice, and more than one of everything."""

import json

import httpx2
import pytest
from support.fleet import bits, submit
from support.processes import poll

from masksmith_service.jobs.queue import MessageProducer


@pytest.mark.slow
def test_every_task_is_delivered_three_times(fleet, weights, undisturbed, table):
    producer = MessageProducer(fleet.broker.url)
    with fleet.client() as client:
        job = submit(client, weights)
        total = job.document.progress.total
        for _ in range(2):
            producer.send_messages("masksmith.cpu", total)
        found = bits(job)
    events = [fields for _, fields in fleet.redis.xrange(f"masksmith:job:{job.id}:events")]
    progress = [json.loads(fields["data"])["done"] for fields in events if fields["event"] == "progress"]
    table["every task delivered three times"].add(lost=int(found != undisturbed))
    assert found == undisturbed
    assert progress == list(range(1, total + 1))
    assert all(json.loads(text)["error"] is None for text in fleet.redis.hvals(f"masksmith:job:{job.id}:reports"))


def await_three_at_work(fleet, job):
    """Wait until three shards are held at once, or the job is over; gives whether they were."""
    total = job.document.progress.total
    outcome = poll(
        lambda: (len(fleet.held(job.id)) == 3 and "together") or (fleet.done(job.id) == total and "too late")
    )
    return outcome == "together"


def test_two_services_and_three_workers_share_one_installation(fleet, weights, undisturbed):
    with fleet.client(0) as first, fleet.client(1) as second:
        while True:
            job = submit(first, weights)
            together = await_three_at_work(fleet, job)
            assert bits(second.jobs.get(job.id)) == undisturbed
            if together:
                break
            fleet.forget_results()  # A worker was not ready before the others had done all: once more.
        assert [found.id for found in second.jobs.list(limit=1)] == [job.id]
    for service in fleet.services:
        assert len(httpx2.get(f"{service.url}/v1/workers").json()) == 3
