import time

import pytest
from blake3 import blake3
from starlette.testclient import TestClient

from masksmith.patterns import parse
from masksmith_service.app import create_app
from masksmith_service.settings import Settings
from masksmith_state.jobs.records import JobRecords
from masksmith_wire.documents import SolverName, WorkerInfo

WORKER = WorkerInfo(name="w", device="cpu", device_name="x", slots=2, queues=["masksmith.cpu"], version="1",
                    started_at="2026-01-01T00:00:00Z")  # fmt: skip


def test_health(client):
    assert client.get("/healthz").json() == {"status": "ok", "wire_version": 1, "data_format": 4}


def test_ready_once_a_worker_lives(client, records):
    response = client.get("/readyz")
    assert (response.status_code, response.json()["code"], response.headers["retry-after"]) == (503, "no_worker", "2")
    assert "start one" in response.json()["detail"]
    records.start_progress.report("w", "compiling kernels, once for this machine: 7 of 20")
    assert client.get("/readyz").json()["detail"] == "compiling kernels, once for this machine: 7 of 20"
    records.workers.announce(WORKER)
    assert client.get("/readyz").json()["workers"] == 1
    assert [worker["name"] for worker in client.get("/v1/workers").json()] == ["w"]


def test_everything_that_discovery_lists_exists(client):
    assert {solver["name"] for solver in client.get("/v1/solvers").json()} == set(SolverName.__args__)
    for pattern in client.get("/v1/patterns").json():
        assert str(parse(pattern["example"])) == pattern["example"]
    kernels = {kernel["name"]: kernel for kernel in client.get("/v1/kernels").json()}
    assert {"dense", "csr", "nm-gather"} <= kernels.keys()
    assert not any(kernel["workers"] for kernel in kernels.values())


def test_openapi_names_every_call(client):
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) >= {
        "/v1/masks", "/v1/tensors/{digest}", "/v1/jobs", "/v1/jobs/{job}", "/v1/jobs/{job}/events",
        "/v1/jobs/{job}/masks", "/v1/jobs/{job}/cancel", "/v1/patterns", "/v1/solvers", "/v1/workers", "/readyz",
    }  # fmt: skip
    assert "text/event-stream" in str(document["paths"]["/v1/jobs/{job}/events"])


@pytest.fixture
def fragile(fragile_valkey, tmp_path):
    """A service whose broker comes and goes."""
    settings = Settings(redis_url=fragile_valkey.url, store_url=str(tmp_path / "store"), sweep_s=0.1)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def test_an_upload_as_soon_as_the_broker_answers_finds_a_claimed_store(fragile_valkey, tmp_path, good):
    settings = Settings(redis_url=fragile_valkey.url, store_url=str(tmp_path / "store"), sweep_s=3600)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        digest = blake3(good).hexdigest()
        check_unavailable(client.put(f"/v1/tensors/{digest}", content=good))
        assert not (tmp_path / "store" / "tensors").exists()
        fragile_valkey.start()
        assert client.put(f"/v1/tensors/{digest}", content=good).status_code == 201
        assert (tmp_path / "store" / "installation.json").exists()


def test_a_service_of_another_store_takes_no_upload(fragile_valkey, tmp_path, good):
    settings = Settings(redis_url=fragile_valkey.url, store_url=str(tmp_path / "store"), sweep_s=3600)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        fragile_valkey.start()
        (tmp_path / "store" / "notes.txt").write_text("not ours")
        response = client.put(f"/v1/tensors/{blake3(good).hexdigest()}", content=good)
        assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
        assert [path.name for path in (tmp_path / "store").iterdir()] == ["notes.txt"]


def check_unavailable(response):
    assert (response.status_code, response.headers["content-type"]) == (503, "application/problem+json")
    assert (response.json()["code"], response.headers["retry-after"]) == ("broker_unavailable", "2")


def poll(condition, timeout_s=300.0):
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_without_a_broker_requests_fail_until_it_is_back(fragile, fragile_valkey, good):
    def submit(**headers):
        return fragile.post("/v1/masks", params={"pattern": "2:4"}, content=good, headers=headers)

    fragile_valkey.start()
    job = submit().json()["id"]
    fragile_valkey.stop()
    assert fragile.get("/healthz").status_code == 200
    for response in (submit(), fragile.get("/readyz"), fragile.get("/v1/jobs"), fragile.get(f"/v1/jobs/{job}"),
                     fragile.get(f"/v1/jobs/{job}/events"), fragile.get(f"/v1/jobs/{job}/masks"),
                     fragile.post(f"/v1/jobs/{job}/cancel"), fragile.delete(f"/v1/jobs/{job}"),
                     fragile.get("/v1/workers")):  # fmt: skip
        check_unavailable(response)
    fragile_valkey.start()
    poll(lambda: fragile.get("/readyz").json()["code"] == "no_worker")
    assert fragile.get(f"/v1/jobs/{job}").json()["state"] == "queued"
    assert submit().status_code == 202


def test_a_job_whose_message_could_not_be_sent_gets_it_later(fragile, fragile_valkey, good, monkeypatch, caplog):
    fragile_valkey.start()
    records = JobRecords(fragile_valkey.url)
    create = JobRecords.create

    def create_and_fail(*args, **options):
        made = create(*args, **options)
        fragile_valkey.stop()
        return made

    with monkeypatch.context() as patch:
        patch.setattr(JobRecords, "create", create_and_fail)
        check_unavailable(fragile.post("/v1/masks", params={"pattern": "2:4"}, content=good))
    assert "recorded but no worker was notified" in caplog.text
    fragile_valkey.start()
    (job,) = fragile.get("/v1/jobs").json()["jobs"]
    assert job["state"] == "queued"
    poll(lambda: records.redis.llen("masksmith.cpu") >= 1)
    records.redis.close()


def test_the_queue_reconnects(fragile, fragile_valkey, good):
    for _ in range(2):
        fragile_valkey.start()
        records = JobRecords(fragile_valkey.url)
        # No message is left of the job before, which may have got two: one of the service, one of its sweeper.
        records.redis.delete("masksmith.cpu")
        response = fragile.post("/v1/masks", params={"pattern": "2:4"}, content=good)
        assert response.status_code == 202
        poll(lambda redis=records.redis: redis.llen("masksmith.cpu") >= 1)
        records.redis.close()
        fragile_valkey.stop()
