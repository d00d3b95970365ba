"""The worker registry: heartbeats, removal and expiry."""

import pytest

from masksmith_state.queue import CPU_QUEUE
from masksmith_state.worker_registry import HEARTBEAT_TIMEOUT_S, WorkerRegistry, served_key
from masksmith_wire.documents import WorkerInfo


def worker(name):
    return WorkerInfo(name=name, device="cpu", device_name="x", slots=2, queues=["q"], version="1",
                      started_at="2026-01-01T00:00:00Z")  # fmt: skip


@pytest.fixture
def registry(records):
    return WorkerRegistry(records.redis, "masksmith:workers", WorkerInfo)


def test_workers_are_listed_until_they_are_removed(registry):
    assert registry.live() == []
    for name in ("b", "a"):
        registry.announce(worker(name))
    assert registry.live() == [worker("a"), worker("b")]
    registry.remove("a")
    assert registry.live() == [worker("b")]


def test_a_worker_without_heartbeats_is_dropped_until_the_next_one(registry, records):
    registry.announce(worker("a"))
    registry.announce(worker("b"))
    assert 0 < records.redis.ttl("masksmith:workers:a") <= HEARTBEAT_TIMEOUT_S
    records.redis.delete("masksmith:workers:a")
    assert registry.live() == [worker("b")]
    assert records.redis.smembers("masksmith:workers") == {"b"}
    registry.announce(worker("a"))
    assert registry.live() == [worker("a"), worker("b")]


def test_reading_the_registry_reads_no_other_keys(registry, records):
    records.redis.mset({f"masksmith:job:{number}": "" for number in range(100)})
    registry.announce(worker("a"))
    before = records.redis.info("commandstats")
    registry.live()
    after = records.redis.info("commandstats")
    assert {name for name in after if after[name]["calls"] > before.get(name, {"calls": 0})["calls"]} <= {
        "cmdstat_smembers", "cmdstat_mget", "cmdstat_pttl", "cmdstat_info",
    }  # fmt: skip


def test_a_dead_worker_does_not_stay_live_if_the_clock_is_set_back(registry, records):
    """Its keys were set before that, so they expire later by as much."""
    keys = ["masksmith:workers:a", served_key(CPU_QUEUE)]
    registry.announce(worker("a").model_copy(update={"queues": [CPU_QUEUE]}))
    for key in keys:
        records.redis.pexpire(key, 3600_000)
    assert registry.live()
    assert all(0 < records.redis.ttl(key) <= HEARTBEAT_TIMEOUT_S for key in keys)
