"""Rolls: who is there."""

import pytest

from masksmith_state.worker_registry import SILENCE_S, Roll
from masksmith_wire.documents import WorkerInfo


def worker(name):
    return WorkerInfo(name=name, device="cpu", device_name="x", slots=2, queues=["q"], version="1",
                      started_at="2026-01-01T00:00:00Z")  # fmt: skip


@pytest.fixture
def roll(records):
    return Roll(records.redis, "masksmith:workers", WorkerInfo)


def test_workers_are_known_until_they_are_dismissed(roll):
    assert roll.present() == []
    for name in ("b", "a"):
        roll.announce(worker(name))
    assert roll.present() == [worker("a"), worker("b")]
    roll.dismiss("a")
    assert roll.present() == [worker("b")]


def test_who_is_silent_is_forgotten_until_he_speaks_up_again(roll, records):
    roll.announce(worker("a"))
    roll.announce(worker("b"))
    assert 0 < records.redis.ttl("masksmith:workers:a") <= SILENCE_S
    records.redis.delete("masksmith:workers:a")
    assert roll.present() == [worker("b")]
    assert records.redis.smembers("masksmith:workers") == {"b"}
    roll.announce(worker("a"))
    assert roll.present() == [worker("a"), worker("b")]


def test_what_else_the_broker_holds_is_not_looked_at(roll, records):
    records.redis.mset({f"masksmith:job:{number}": "" for number in range(100)})
    roll.announce(worker("a"))
    before = records.redis.info("commandstats")
    roll.present()
    after = records.redis.info("commandstats")
    assert {name for name in after if after[name]["calls"] > before.get(name, {"calls": 0})["calls"]} <= {
        "cmdstat_smembers", "cmdstat_mget", "cmdstat_info",
    }  # fmt: skip
