"""`/readyz` is 503 while requests with a key are: it tries a write to broker and store, at most once a second."""

import pytest
import redis
from starlette.testclient import TestClient

from masksmith_service.app import create_app
from masksmith_service.settings import Settings
from masksmith_service.system import readiness
from masksmith_state import broker
from masksmith_state.jobs.records import JobRecords
from masksmith_state.keys import Keys, Role
from masksmith_wire.documents import WorkerInfo

WORKER = WorkerInfo(name="w", device="cpu", device_name="x", slots=2, queues=["masksmith.cpu"], version="1",
                    started_at="2026-01-01T00:00:00Z")  # fmt: skip


@pytest.fixture
def installation(fragile_valkey, tmp_path, monkeypatch):
    """A client with a key, and the records of a broker of its own that a test may fill or make read-only."""
    monkeypatch.setattr(readiness, "REUSE_S", 0.0)
    monkeypatch.setattr(broker, "FRESH_S", 0.0)
    fragile_valkey.start()
    records = JobRecords(fragile_valkey.url)
    _, token = Keys(records.redis).create("ann")
    settings = Settings(redis_url=fragile_valkey.url, store_url=str(tmp_path / "store"), auth="required")
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {token}"
        records.workers.announce(WORKER)
        assert client.get("/readyz").status_code == 200
        yield client, records, tmp_path / "store"
    records.redis.close()


def admin(records):
    return {"Authorization": f"Bearer {Keys(records.redis).create('ops', Role.ADMIN)[1]}"}


def fill_broker(redis_client, folder):
    redis_client.config_set("maxmemory", 1)


def make_replica(redis_client, folder):
    redis_client.replicaof("127.0.0.1", 1)


def lose_store(redis_client, folder):
    folder.rename(folder.with_name("elsewhere"))


def block_store(redis_client, folder):
    """The store can be read, and takes no writes: also root cannot make a folder where a file is."""
    incoming = folder / "incoming"
    if incoming.exists():
        incoming.rmdir()
    incoming.write_text("")


def unblock_store(folder):
    (folder / "incoming").unlink()


FAULTS = {
    fill_broker: ("broker_unavailable", lambda client, folder: client.config_set("maxmemory", 0)),
    make_replica: ("broker_unavailable", lambda client, folder: client.replicaof("NO", "ONE")),
    lose_store: ("store_unavailable", lambda client, folder: folder.with_name("elsewhere").rename(folder)),
    block_store: ("store_unavailable", lambda client, folder: unblock_store(folder)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_readiness_fails_while_requests_with_a_key_fail(installation, good, fault):
    client, records, folder = installation
    code, mend = FAULTS[fault]
    fault(records.redis, folder)
    response = client.get("/readyz")
    assert (response.status_code, response.json()["code"]) == (503, code)
    assert client.get("/healthz").status_code == 200
    upload = client.post("/v1/masks", params={"pattern": "2:4"}, content=good)
    refusal = "broker_full" if fault is fill_broker else code
    assert (upload.status_code, upload.json().get("code")) == (503, refusal) or fault is block_store
    mend(records.redis, folder)
    records.workers.announce(WORKER)
    assert client.get("/readyz").status_code == 200
    assert client.post("/v1/masks", params={"pattern": "2:4"}, content=good).status_code == 202


def evict(redis_client):
    redis_client.config_set("maxmemory-policy", "allkeys-lru")


def use_much(redis_client):
    redis_client.config_set("maxmemory", int(redis_client.info("memory")["used_memory"] * 1.1))


LOSSES = {
    evict: ("evicts keys", lambda client: client.config_set("maxmemory-policy", "noeviction")),
    use_much: ("it takes no jobs", lambda client: client.config_set("maxmemory", 0)),
}


@pytest.mark.parametrize("change", LOSSES)
def test_readiness_fails_while_the_broker_may_lose_work(installation, caplog, change):
    client, records, _ = installation
    words, mend = LOSSES[change]
    change(records.redis)
    response = client.get("/readyz")
    assert (response.status_code, response.json()["code"]) == (503, "broker_unavailable")
    assert words in response.json()["detail"]
    assert "may lose or refuse work" in caplog.text
    assert "masksmith_broker_losses 1.0" in client.get("/metrics", headers=admin(records)).text
    mend(records.redis)
    assert client.get("/readyz").status_code == 200
    assert "the broker has recovered" in caplog.text


def test_readiness_writes_at_most_once_a_second(client, app, records, monkeypatch):
    store, written = app.state.masksmith.store, []
    put = store.objects.put
    monkeypatch.setattr(store.objects, "put", lambda name, data: (written.append(name), put(name, data)))
    for _ in range(20):
        client.get("/readyz")
    assert 1 <= len(written) <= 3
    assert not any(store.list("incoming"))


def test_readiness_uses_the_client_that_authenticates_requests(client, app, monkeypatch):
    def exhausted(*_, **__):
        raise redis.MaxConnectionsError("Too many connections")

    monkeypatch.setattr(app.state.masksmith.async_redis, "set", exhausted)
    response = client.get("/readyz")
    assert (response.status_code, response.json()["code"]) == (503, "broker_unavailable")
