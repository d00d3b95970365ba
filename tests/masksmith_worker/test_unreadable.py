"""A record that cannot be read is set aside, and the worker goes on."""

import numpy as np
import pytest
from support.leases import run_shard

from masksmith_state.jobs.redis_keys import job_key, parts_key
from masksmith_state.unreadable import entries, set_aside

WEIGHT = {"w": np.ones((8, 8), np.float32)}


def garble_plan(redis, job):
    redis.hset(job_key(job), "plan", "junk")


def garble_shard(redis, job):
    redis.hset(parts_key(job), "0", "junk")


def garble_done(redis, job):
    redis.hset(job_key(job), "done", "junk")


def garble_pending(redis, job):
    redis.delete(f"masksmith:job:{job}:pending")
    redis.set(f"masksmith:job:{job}:pending", "junk")


def garble_bytes(redis, job):
    redis.hset(job_key(job), "kind", b"\xff")


@pytest.mark.parametrize("garble", [garble_plan, garble_shard, garble_done, garble_pending, garble_bytes])
def test_a_job_that_cannot_be_read_is_set_aside_and_the_next_is_solved(runner, records, submit, garble):
    bad, good = submit(WEIGHT), submit(WEIGHT)
    garble(records.redis, bad)
    while records.state(good) == "queued":
        with runner.next_lease() as lease:
            assert runner.run(lease) == ("completed" if lease.job == good else "unreadable")
    (entry,) = entries(records.redis)
    assert (entry["kind"], entry["name"]) == ("job", bad)
    assert entry["reason"]
    assert records.state(good) == "succeeded"


def test_uploads_of_an_ended_job_can_be_deleted(runner, records, submit):
    bad = submit(WEIGHT)
    assert run_shard(runner, bad, 0) == "completed"
    (result,) = records.redis.smembers(f"masksmith:job:{bad}:results")
    garble_bytes(records.redis, bad)
    assert records.delete(bad)
    assert records.redis.zrange("masksmith:unreferenced_results", 0, -1) == [result]


def test_what_a_full_broker_cannot_set_aside_is_logged(records, caplog):
    records.redis.config_set("maxmemory", "1")
    try:
        set_aside(records.redis, "message", "masksmith.cpu", "no JSON", "junk \x1b")
    finally:
        records.redis.config_set("maxmemory", "0")
    assert "'masksmith.cpu' cannot be read ('no JSON'), and was not set aside" in caplog.text
    assert r"it begins: 'junk \x1b'" in caplog.text
    assert entries(records.redis) == []
