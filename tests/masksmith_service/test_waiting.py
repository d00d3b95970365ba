"""Jobs that no living worker takes, and tensors that one has taken."""

import numpy as np
import pytest
from support.leases import take

from masksmith_state.jobs.reports import ShardReport
from masksmith_state.queue import BENCH_GPU_QUEUE, CPU_QUEUE, GPU_QUEUE
from masksmith_state.worker_registry import HEARTBEAT_TIMEOUT_S, served_key
from masksmith_wire.benchmarks import CaseReport
from masksmith_wire.documents import WorkerInfo
from masksmith_wire.errors import TensorError

HTML = {"Accept": "text/html"}
BENCHMARK = {"kind": "benchmark", "model": "MiniLM", "patterns": ["2:4"], "batches": [1], "curves": False}
ERROR = TensorError(code="internal", message="no")


@pytest.fixture
def announce(records):
    """Announce a living worker of a queue."""

    def announce(queue, name="anvil"):
        worker = WorkerInfo(name=name, device="cpu", device_name="x", slots=1, queues=[queue], version="1",
                            started_at="2026-01-01T00:00:00Z")  # fmt: skip
        records.workers.announce(worker)

    return announce


def waiting_for(client, job):
    return client.get(f"/v1/jobs/{job}").json()["waiting_for"]


def test_a_job_says_at_once_that_no_worker_takes_it(client, submit, records, announce):
    job = submit()
    lacking = {"queue": CPU_QUEUE, "role": "search", "device": "cpu"}
    assert job["waiting_for"] == lacking
    announce(GPU_QUEUE)
    assert waiting_for(client, job["id"]) == lacking
    announce(CPU_QUEUE, "other")
    assert waiting_for(client, job["id"]) is None
    assert 0 < records.redis.ttl(served_key(CPU_QUEUE)) <= HEARTBEAT_TIMEOUT_S
    records.redis.delete(served_key(CPU_QUEUE))
    assert waiting_for(client, job["id"]) == lacking
    records.cancel(job["id"])
    assert waiting_for(client, job["id"]) is None


def test_a_benchmark_waits_for_a_worker_of_its_device(client, announce):
    announce(CPU_QUEUE)
    job = client.post("/v1/jobs", json=BENCHMARK | {"device": "cuda"}).json()
    assert job["waiting_for"] == {"queue": BENCH_GPU_QUEUE, "role": "bench", "device": "cuda"}
    announce(BENCH_GPU_QUEUE)
    assert waiting_for(client, job["id"]) is None


def test_a_job_may_require_a_worker(client, good, put, records, announce, check_problem):
    query = {"pattern": "2:4", "require_worker": "true"}
    document = {"pattern": "2:4", "tensors": [{"name": "a", "digest": put(good), "key": "layer.weight"}]}
    refused = client.post("/v1/masks", params=query, content=good)
    also_refused = client.post("/v1/jobs", params={"require_worker": "true"}, json=document)
    assert client.get("/v1/jobs").json()["jobs"] == []
    for response in (refused, also_refused):
        problem = check_problem(response, 503, "no_worker", "no worker is alive that finds masks on cpu")
        assert problem["waiting_for"]["queue"] == CPU_QUEUE
        assert response.headers["retry-after"]
    announce(CPU_QUEUE)
    assert client.post("/v1/masks", params=query, content=good).status_code == 202
    assert client.post("/v1/jobs", params={"require_worker": "true"}, json=document).status_code == 202
    wrong = client.post("/v1/jobs", params={"require_worker": "true"}, json=BENCHMARK | {"device": "cuda"})
    check_problem(wrong, 503, "no_worker", "'masksmith worker --role bench --device cuda:0'")


def test_pages_say_what_a_job_waits_for(client, submit, announce):
    jobs = [submit()["id"], client.post("/v1/jobs", json=BENCHMARK).json()["id"]]
    for job, device in zip(jobs, ["finds masks on cpu", "measures on cpu"], strict=True):
        assert f"Waiting: no worker is alive that {device}" in client.get(f"/jobs/{job}", headers=HTML).text
    announce(CPU_QUEUE)
    assert "Waiting:" not in client.get(f"/jobs/{jobs[0]}", headers=HTML).text


def test_a_queued_job_has_a_position(client, submit, announce, records):
    announce(CPU_QUEUE)
    first, second = submit()["id"], submit()
    assert second["position"]["jobs_ahead"] == 1
    position = client.get(f"/v1/jobs/{second['id']}").json()["position"]
    assert position["starts_in_s"] > 0
    assert "Queued: 1 job ahead, starts " in client.get(f"/jobs/{second['id']}", headers=HTML).text
    take(records, first, 0, lease_s=60, attempts=3)
    assert client.get(f"/v1/jobs/{first}").json()["position"] is None
    assert client.get(f"/v1/jobs/{second['id']}").json()["position"]["jobs_ahead"] == 0


def states(client, job, members):
    return [member["state"] for member in client.get(f"/v1/jobs/{job}").json()[members]]


def test_a_tensor_runs_while_a_worker_has_a_shard_of_it(client, save, records):
    data = save({name: np.ones((8, 8), np.float32) for name in "abc"})
    job = client.post("/v1/masks", params={"pattern": "2:4"}, content=data).json()["id"]
    assert states(client, job, "tensors") == ["queued", "queued", "queued"]
    lease = take(records, job, 1, lease_s=60, attempts=3)
    assert states(client, job, "tensors") == ["queued", "running", "queued"]
    records.complete(lease, ShardReport(error=ERROR))
    assert states(client, job, "tensors") == ["queued", "failed", "queued"]
    take(records, job, 2, lease_s=60, attempts=3)
    records.cancel(job)
    assert states(client, job, "tensors") == ["canceled", "failed", "canceled"]


def test_a_tensor_waits_again_when_its_shard_is_queued_again(client, submit, records):
    job = submit()["id"]
    records.release(take(records, job, 0, lease_s=60, attempts=3))
    assert list(records.schedule.requeue_lapsed_shards()) == [(job, 0)]
    assert states(client, job, "tensors") == ["queued"]


def test_a_case_runs_while_a_worker_has_it(client, records):
    job = client.post("/v1/jobs", json=BENCHMARK).json()["id"]
    cases = len(states(client, job, "cases"))
    lease = take(records, job, 0, lease_s=60, attempts=3)
    assert states(client, job, "cases") == ["running"] + ["queued"] * (cases - 1)
    records.complete(lease, CaseReport(error=ERROR))
    assert states(client, job, "cases") == ["failed"] + ["queued"] * (cases - 1)
