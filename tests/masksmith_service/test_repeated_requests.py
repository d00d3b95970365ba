"""A repeated request with an `Idempotency-Key` returns its job, also if what the job was planned from has changed."""

import numpy as np
import pytest
from support.leases import take

from masksmith_service.jobs import submission
from masksmith_state.blobs.names import result_name
from masksmith_state.blobs.references import BlobReferences
from masksmith_state.blobs.store import BlobStore
from masksmith_state.jobs.reports import ShardReport
from masksmith_wire.masks import pack

KEY = {"Idempotency-Key": "k"}
MASK = np.tile([True, False], (8, 4))


@pytest.fixture
def document(put, good):
    return {"pattern": "2:4", "tensors": [{"name": "a", "digest": put(good), "key": "layer.weight"}]}


@pytest.fixture
def finish(records, settings):
    """Finish a shard of a job of one tensor of 8 x 8 in two shards."""
    store = BlobStore(settings.store_url)

    def finish(job, shard):
        key = f"{shard:064x}"
        assert BlobReferences(records.redis, store).add_result_reference(job, key)
        store.put(result_name(key), pack(MASK[4 * shard :][:4]).tobytes())
        report = ShardReport(result=key, status="optimal", kept=16, entries=32)
        assert records.complete(take(records, job, shard, lease_s=60, attempts=3), report)

    return finish


def accepted(response):
    assert response.status_code == 202, response.text
    return response.json()["id"]


def test_the_masks_of_a_previous_job_that_is_running_may_become_more(app, client, save, finish):
    app.state.masksmith.settings.shard_bytes = 4 * 8 * 4
    tensors = {name: np.full((8, 8), number, np.float32) for number, name in enumerate("ab")}

    def submit(**query):
        headers = KEY if query else {}
        return client.post("/v1/masks", params={"pattern": "2:4"} | query, content=save(tensors), headers=headers)

    earlier = accepted(submit())
    for shard in (0, 1):
        finish(earlier, shard)
    job = accepted(submit(previous=earlier))
    for shard in (2, 3):
        finish(earlier, shard)
    assert accepted(submit(previous=earlier)) == job
    client.delete(f"/v1/jobs/{earlier}")
    assert accepted(submit(previous=earlier)) == job


def test_an_upload_of_the_job_may_be_gone(client, document, records):
    job = accepted(client.post("/v1/jobs", json=document, headers=KEY))
    records.redis.delete(*records.redis.keys("masksmith:upload:*"))
    assert client.post("/v1/jobs", json=document).json()["code"] == "upload_not_found"
    assert accepted(client.post("/v1/jobs", json=document, headers=KEY)) == job


def test_a_worker_may_be_required_meanwhile(client, document):
    job = accepted(client.post("/v1/jobs", json=document, headers=KEY))
    assert client.post("/v1/jobs?require_worker=true", json=document).json()["code"] == "no_worker"
    assert accepted(client.post("/v1/jobs?require_worker=true", json=document, headers=KEY)) == job


def test_the_cases_of_a_benchmark_may_depend_on_its_workers(client, monkeypatch, check_problem):
    benchmark = {"kind": "benchmark", "model": "MiniLM", "patterns": ["2:4"]}
    job = accepted(client.post("/v1/jobs", json=benchmark, headers=KEY))
    plan = submission.plan_benchmark
    monkeypatch.setattr(
        submission,
        "plan_benchmark",
        lambda document, records: plan(document.model_copy(update={"kernels": ["dense"]}), records),
    )
    assert accepted(client.post("/v1/jobs", json=benchmark, headers=KEY)) == job
    other = client.post("/v1/jobs", json=benchmark | {"model": "BERT"}, headers=KEY)
    check_problem(other, 409, "idempotency_conflict", "'k'")


def test_a_request_of_another_kind_is_another_request(client, document, good, check_problem):
    job = accepted(client.post("/v1/jobs", json=document, headers=KEY))
    as_file = client.post("/v1/masks?pattern=2:4", content=good, headers=KEY)
    check_problem(as_file, 409, "idempotency_conflict", "'k'")
    client.delete(f"/v1/jobs/{job}")
    assert accepted(client.post("/v1/masks?pattern=2:4", content=good, headers=KEY)) != job
