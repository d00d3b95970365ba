"""Problems of the broker are logged when they begin and when they are over, not at every reading."""

import logging

import pytest

from masksmith_state.broker import BrokerMonitor

LIMIT = 1_000_000


class Broker:
    """A client whose broker uses the next of some numbers of bytes at each reading."""

    def __init__(self, *used_bytes):
        self._used_bytes = iter(used_bytes)

    def info(self, section):
        if section == "memory":
            return {"used_memory": next(self._used_bytes), "maxmemory": LIMIT, "maxmemory_policy": "noeviction"}
        return {}

    def config_get(self, name):
        return {name: {"maxmemory-policy": "noeviction", "appendonly": "yes", "save": ""}[name]}


class FailingBroker:
    """A Redis client that reports these fields as failed writes, one reading after the other."""

    def __init__(self, *fields):
        self._fields = iter(fields)

    def info(self, section):
        if section == "memory":
            return {"used_memory": 1, "maxmemory": LIMIT, "maxmemory_policy": "noeviction"}
        return dict.fromkeys(next(self._fields), "err")

    def config_get(self, name):
        return {name: {"maxmemory-policy": "noeviction", "appendonly": "yes", "save": "60 1"}[name]}


@pytest.fixture(autouse=True)
def every_reading(monkeypatch):
    monkeypatch.setattr("masksmith_state.broker.FRESH_S", 0.0)


def test_a_full_broker_is_logged_once_however_full_it_is(caplog):
    monitor = BrokerMonitor(Broker(900_001, 950_000, 999_999, 100))
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            monitor.status()
    full, recovered = caplog.messages
    assert "it takes no jobs: 900001 of 1000000 bytes are in use" in full
    assert recovered == "the broker has recovered"


def test_another_kind_of_failed_write_is_logged(caplog):
    aof, rdb = "aof_last_write_status", "rdb_last_bgsave_status"
    readings = [[aof], [aof], [aof, rdb], [rdb]]
    monitor = BrokerMonitor(FailingBroker(*readings))
    with caplog.at_level(logging.WARNING):
        for _ in readings:
            monitor.status()
    assert [message.partition("failed ")[2] for message in caplog.messages] == [
        f"({aof})",
        f"({aof}, {rdb})",
        f"({rdb})",
    ]
