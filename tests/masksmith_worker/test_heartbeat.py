import time

from masksmith_state.jobs.records import JobRecords
from masksmith_worker.heartbeat import Heartbeat


def poll(condition, timeout_s=300.0):
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_worker_is_listed_while_it_sends_heartbeats(records):
    heartbeat = Heartbeat(records, "w", "cpu", 2, ["masksmith.cpu"])
    heartbeat.start()
    poll(records.workers.live)
    (info,) = records.workers.live()
    assert (info.name, info.device, info.slots, info.queues) == ("w", "cpu", 2, ["masksmith.cpu"])
    heartbeat.stop()
    assert records.workers.live() == []
    assert not heartbeat.is_alive()


def test_it_outlives_a_gpu_whose_memory_cannot_be_read(records, monkeypatch):
    facts = [("GPU", 2**30)]

    def device_facts(device):
        if not facts:
            raise RuntimeError("CUDA error: out of memory")
        return facts.pop()

    monkeypatch.setattr("masksmith_worker.heartbeat.device_facts", device_facts)
    heartbeat = Heartbeat(records, "w", "cuda:0", 1, ["masksmith.gpu"])
    heartbeat.start()
    try:
        poll(lambda: records.workers.live() or not heartbeat.is_alive())
        (info,) = records.workers.live()
        assert (info.device_name, info.free_bytes) == ("GPU", None)
        assert heartbeat.is_alive()
    finally:
        heartbeat.stop()


def test_it_outlives_an_absent_broker(fragile_valkey, monkeypatch):
    monkeypatch.setattr("masksmith_worker.heartbeat.HEARTBEAT_TIMEOUT_S", 0.2)
    records = JobRecords(fragile_valkey.url)
    heartbeat = Heartbeat(records, "w", "cpu", 2, [])
    heartbeat.start()
    try:
        fragile_valkey.start()
        poll(records.workers.live)
    finally:
        fragile_valkey.stop()
        heartbeat.stop()
        records.redis.close()
