"""Priorities of jobs, bounded by their keys, and shares of keys."""

import json

import pytest

from masksmith_service.local.keys import create
from masksmith_state.keys import Keys, Sharing, redis_key_of
from masksmith_state.queue import CPU_QUEUE


@pytest.fixture
def key_of(records):
    """Create a key with a share; gives its id and headers."""

    def key_of(**sharing):
        info, token = Keys(records.redis).create("ann", sharing=Sharing(**sharing))
        return info.id, {"Authorization": f"Bearer {token}"}

    return key_of


@pytest.fixture
def start(client, good):
    """Start a job; gives its document."""

    def start(headers=None, **query):
        response = client.post("/v1/masks", params={"pattern": "2:4"} | query, content=good, headers=headers)
        assert response.status_code == 202, response.text
        return response.json()

    return start


def test_a_job_is_normal_unless_it_says_otherwise(client, put, good, start):
    tensors = [{"name": "a", "digest": put(good), "key": "layer.weight"}]
    document = {"pattern": "2:4", "tensors": tensors}
    assert client.post("/v1/jobs", json=document).json()["priority"] == start()["priority"] == "normal"
    assert client.post("/v1/jobs", json=document | {"priority": "batch"}).json()["priority"] == "batch"
    assert start(priority="interactive")["priority"] == "interactive"


def test_a_priority_that_is_none_is_refused(client, good, put, check_problem):
    response = client.post("/v1/masks", params={"pattern": "2:4", "priority": "urgent"}, content=good)
    check_problem(response, 422, "invalid_document", "priority")
    tensors = [{"name": "a", "digest": put(good), "key": "layer.weight"}]
    response = client.post("/v1/jobs", json={"pattern": "2:4", "tensors": tensors, "priority": 1})
    check_problem(response, 422, "invalid_document", "priority")


@pytest.mark.parametrize(
    ("highest", "shown"),
    [("interactive", ["interactive", "normal", "batch"]), ("normal", ["normal", "normal", "batch"]),
     ("batch", ["batch"] * 3)],
)  # fmt: skip
def test_a_key_bounds_the_priority_of_its_jobs(start, key_of, highest, shown):
    _, headers = key_of(max_priority=highest)
    jobs = [start(headers, priority=each) for each in ("interactive", "normal", "batch")]
    assert [job["priority"] for job in jobs] == shown


def test_the_interactive_job_of_a_key_is_taken_first(start, records):
    batch, normal, now = (start(priority=each)["id"] for each in ("batch", "normal", "interactive"))
    taken = [records.schedule.take(CPU_QUEUE, lease_s=60, attempts=3).job for _ in range(3)]
    assert taken == [now, normal, batch]


def test_a_benchmark_has_a_priority(client):
    document = {"kind": "benchmark", "model": "MiniLM", "patterns": ["2:4"], "batches": [1], "priority": "batch"}
    assert client.post("/v1/jobs", json=document).json()["priority"] == "batch"


def test_an_admin_sets_weight_and_highest_priority(client, records, capsys, valkey):
    create("ops", role="admin", redis_url=valkey.url, as_json=True)
    headers = {"Authorization": f"Bearer {json.loads(capsys.readouterr().out)['token']}"}
    create("ann", weight=3.0, max_priority="normal", redis_url=valkey.url, as_json=True)
    of_command = json.loads(capsys.readouterr().out)
    document = {"name": "bob", "weight": 2.5, "max_priority": "batch"}
    of_request = client.post("/v1/keys", json=document, headers=headers).json()
    assert (of_command["weight"], of_command["max_priority"]) == (3.0, "normal")
    assert of_request | document == of_request
    assert records.redis.hget(redis_key_of(of_command["id"]), "weight") == "3.0"
    listed = {
        key["name"]: (key["weight"], key["max_priority"]) for key in client.get("/v1/keys", headers=headers).json()
    }
    assert listed == {"ops": (1.0, "interactive"), "ann": (3.0, "normal"), "bob": (2.5, "batch")}


@pytest.mark.parametrize("document", [{"weight": 0}, {"weight": 1e9}, {"weight": "x"}, {"max_priority": "urgent"}])
def test_invalid_weights_and_priorities_are_rejected(client, document, capsys, valkey):
    create("ops", role="admin", redis_url=valkey.url, as_json=True)
    headers = {"Authorization": f"Bearer {json.loads(capsys.readouterr().out)['token']}"}
    response = client.post("/v1/keys", json={"name": "bob"} | document, headers=headers)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_document")
    assert next(iter(document)) in response.json()["detail"]


def test_the_weight_of_a_key_counts_for_its_shards(start, key_of, records):
    (heavy, of_heavy), (light, of_light) = key_of(weight=3), key_of()
    for _ in range(20):
        start(of_heavy)
        start(of_light)
    owners = [records.owner(records.schedule.take(CPU_QUEUE, lease_s=60, attempts=3).job) for _ in range(20)]
    assert owners.count(heavy) == pytest.approx(3 * owners.count(light), abs=3)
