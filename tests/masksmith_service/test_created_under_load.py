"""A request that has created or canceled a job succeeds, also if there is too little memory for the job's document."""

import numpy as np
import pytest

from masksmith_service.bounds.capacity import Capacity
from masksmith_service.bounds.table import cost

PARTS = 512


@pytest.fixture
def limit_memory(app, client):
    """Set how many bytes of memory requests may reserve."""

    def limit_memory(total):
        app.state.masksmith.settings.shard_bytes = 8 * 4
        app.state.masksmith.capacities.memory = Capacity("request_memory_bytes", total)

    return limit_memory


@pytest.fixture
def document(put, save):
    digest = put(save({"w": np.ones((PARTS, 8), np.float32)}))
    return {"pattern": "2:4", "tensors": [{"name": "w", "digest": digest, "key": "w"}]}


@pytest.mark.parametrize("headers", [{}, {"Prefer": "wait=0"}], ids=["at once", "waits"])
def test_a_job_whose_parts_take_most_of_the_memory_is_answered_with_its_document(
    client, document, limit_memory, records, headers
):
    limit_memory(cost("part") * PARTS * 3 // 2)
    response = client.post("/v1/jobs", json=document, headers=headers)
    assert response.status_code == 202, response.text
    job = response.json()
    assert len(records.shards(job["id"])) == PARTS
    assert job["tensors"][0]["name"] == "w"


@pytest.mark.parametrize("headers", [{}, {"Prefer": "wait=0"}], ids=["at once", "waits"])
def test_a_job_that_cannot_be_read_now_is_answered_with_its_entry_in_lists(
    client, app, document, limit_memory, headers, monkeypatch
):
    limit_memory(2**30)
    memory = app.state.masksmith.capacities.memory
    start = app.state.masksmith.records.create

    def create_and_use_memory(*args, **kwargs):
        monkeypatch.setattr(memory, "total", 0)
        return start(*args, **kwargs)

    monkeypatch.setattr(app.state.masksmith.records, "create", create_and_use_memory)
    response = client.post("/v1/jobs", json=document | {"name": "large"}, headers=headers)
    assert response.status_code == 202, response.text
    job = response.json()
    assert response.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert ("Preference-Applied" in response.headers) == bool(headers)
    assert (job["name"], job["kind"], job["state"], "tensors" in job, "key" in job) == (
        "large", "masks", "queued", False, False,
    )  # fmt: skip
    assert client.get(response.headers["Location"]).json()["code"] == "overloaded"


@pytest.mark.parametrize("total", [0, 2**30])
def test_a_cancellation_succeeds_also_if_the_job_cannot_be_read_now(
    client, app, document, limit_memory, monkeypatch, total
):
    limit_memory(2**30)
    job = client.post("/v1/jobs", json=document | {"name": "large"}).json()["id"]
    monkeypatch.setattr(app.state.masksmith.capacities.memory, "total", total)
    for _ in range(2):
        response = client.post(f"/v1/jobs/{job}/cancel")
        assert response.status_code == 200, response.text
        canceled = response.json()
        assert (canceled["id"], canceled["name"], canceled["state"]) == (job, "large", "canceled")
        assert ("tensors" in canceled) == bool(total)


def test_a_job_that_has_ended_and_cannot_be_read_now_is_answered_as_ended(
    client, app, document, limit_memory, monkeypatch
):
    limit_memory(2**30)
    state = app.state.masksmith

    async def end_and_use_memory(job, wait_s):
        state.records.cancel(job)
        monkeypatch.setattr(state.capacities.memory, "total", 0)
        return True

    monkeypatch.setattr(state.completions, "wait", end_and_use_memory)
    response = client.post("/v1/jobs", json=document, headers={"Prefer": "wait=9"})
    assert (response.status_code, response.json()["state"], "tensors" in response.json()) == (200, "canceled", False)
    assert response.headers["Location"] == f"/v1/jobs/{response.json()['id']}"
