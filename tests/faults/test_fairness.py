"""Keys share real workers: a small job does not wait for another key's thousands of shards, and nothing is lost."""

import json

import httpx2
import numpy as np
import pytest
import safetensors.numpy
from support.fleet import Fleet
from support.processes import poll

from masksmith_state.jobs.records import JobRecords
from masksmith_state.keys import Keys, Sharing

SHARDS = 2000


@pytest.fixture(scope="module")
def lone(tmp_path_factory):
    """A service and one worker with one slot."""
    with Fleet(tmp_path_factory.mktemp("fair"), MASKSMITH_LEASE_S="60") as fleet:
        yield fleet


@pytest.fixture
def key_of(lone):
    """Create a key; gives a function that starts a job of so many shards, and returns its id.

    Jobs that are still live after the test are canceled.
    """
    jobs = []

    def key_of(name, **sharing):
        _, token = Keys(lone.redis).create(name, sharing=Sharing(**sharing))
        seeds = iter(np.random.default_rng([*name.encode()]).integers(2**31, size=100))

        def start(shards, **query):
            rng = np.random.default_rng(next(seeds))
            weights = {f"w{number}": rng.standard_normal((16, 16), np.float32) for number in range(shards)}
            response = httpx2.post(
                f"{lone.url}/v1/masks",
                params={"pattern": "2:4", "layers": "*"} | query,
                content=safetensors.numpy.save(weights),
                headers={"Authorization": f"Bearer {token}"},
                timeout=300,
            )
            assert response.status_code == 202, response.text
            jobs.append(response.json()["id"])
            return jobs[-1]

        return start

    yield key_of
    cancel(lone, *jobs)


def moments(fleet, job, kind, **data):
    """Ids of a job's events, which are times of the broker."""
    events = fleet.redis.xrange(f"masksmith:job:{job}:events")
    found = [(at, json.loads(fields["data"])) for at, fields in events if fields["event"] == kind]
    return [tuple(map(int, at.split("-"))) for at, document in found if data.items() <= document.items()]


def ended(fleet, job):
    return fleet.redis.hget(f"masksmith:job:{job}", "state") not in ("queued", "running")


def cancel(fleet, *jobs):
    records = JobRecords(fleet.broker.url)
    for job in jobs:
        records.cancel(job)
    records.redis.close()


def test_a_small_job_is_taken_next_beside_thousands_of_shards_of_another_key(lone, key_of):
    big, beside = key_of("ann")(SHARDS), 0
    lone.await_done(big, 20)
    for number in range(5):
        # A new key each time: a key whose last shard took longer than several of `big` waits for its share of seconds.
        small = key_of(f"bob{number}")(1)
        poll(lambda small=small: ended(lone, small))
        (begun,), (taken,) = (moments(lone, small, "state", state=word) for word in ("queued", "running"))
        before = [at for at in moments(lone, big, "progress") if begun <= at <= taken]
        assert len(before) <= 2
        beside += not ended(lone, big)
    assert beside, "no small job met the large one"


@pytest.mark.slow
def test_an_interactive_job_is_taken_before_the_batch_of_its_own_key(lone, key_of):
    ann = key_of("ann")
    big = ann(SHARDS, priority="batch")
    lone.await_done(big, 20)
    small = ann(1, priority="interactive")
    poll(lambda: ended(lone, small))
    (begun,), (taken,) = (moments(lone, small, "state", state=word) for word in ("queued", "running"))
    assert len([at for at in moments(lone, big, "progress") if begun <= at <= taken]) <= 2


@pytest.mark.slow
def test_two_keys_get_equal_shares_and_a_third_gets_its_weight(lone, key_of):
    jobs = {name: key_of(name, weight=weight)(SHARDS) for name, weight in (("ann", 1), ("bob", 1), ("cid", 3))}
    begun = {name: lone.done(job) for name, job in jobs.items()}
    lone.await_done(jobs["cid"], begun["cid"] + 500)
    taken = {name: lone.done(job) - begun[name] for name, job in jobs.items()}
    cancel(lone, *jobs.values())
    assert 0.35 <= taken["ann"] / (taken["ann"] + taken["bob"]) <= 0.65
    assert 1.8 <= taken["cid"] / taken["ann"] <= 4.5


@pytest.mark.slow
def test_a_worker_that_dies_right_after_it_took_a_shard_loses_nothing(lone, key_of):
    job = key_of("ann")(200)
    records = JobRecords(lone.broker.url)
    for _ in range(3):
        assert records.schedule.take("masksmith.cpu", lease_s=0.5, attempts=3, worker="dead") is not None
    poll(lambda: ended(lone, job))
    assert lone.redis.hget(f"masksmith:job:{job}", "state") == "succeeded"
    assert lone.done(job) == 200
    records.redis.close()


@pytest.mark.slow
def test_messages_that_are_lost_are_sent_again(lone, key_of):
    job = key_of("ann")(300)
    for _ in range(5):
        lone.redis.delete("masksmith.cpu")
    poll(lambda: ended(lone, job))
    assert lone.redis.hget(f"masksmith:job:{job}", "state") == "succeeded"


def test_a_canceled_job_leaves_no_work(lone, key_of):
    ann = key_of("ann")
    big, after = ann(SHARDS), ann(1)
    cancel(lone, big)
    poll(lambda: ended(lone, after))
    assert JobRecords(lone.broker.url).schedule.depth("masksmith.cpu") == 0
