"""The metrics of an installation, which are the same in every service."""

import json
import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from support.leases import run_shard, take

from masksmith import WeightError
from masksmith_service.app import create_app
from masksmith_state.blobs.store import BlobStore
from masksmith_state.jobs.reports import ShardReport
from masksmith_state.keys import Keys, Role
from masksmith_state.telemetry.counters import GAP_BOUNDS, SECONDS_BOUNDS
from masksmith_wire.documents import WorkerInfo
from masksmith_wire.errors import TensorError
from masksmith_worker.runner import ShardRunner

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana.json"


@pytest.fixture
def read(client):
    """Read all samples: (name, labels) -> value."""

    def read(asked=client, **headers):
        response = asked.get("/metrics", headers=headers)
        assert response.status_code == 200, response.text
        families = text_string_to_metric_families(response.text)
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    return read


def work(records, settings, job, device="cpu"):
    runner = ShardRunner(records, BlobStore(settings.store_location), device=device)
    return [run_shard(runner, job, index) for index in records.shards(job)]


def state(kind, state, name="masksmith_jobs"):
    return (name, ("kind", kind), ("state", state))


def test_an_empty_installation_has_its_gauges(read):
    found = read()
    assert found["masksmith_upload_bytes_total",] == 0
    assert found["masksmith_queue_depth", ("queue", "masksmith.cpu")] == 0
    assert found["masksmith_shard_gap_bucket", ("le", "0.0")] == 0


def test_jobs_are_counted_from_state_to_state(client, records, settings, read, submit):
    first, second, third = (submit()["id"] for _ in range(3))
    assert read()[state("masks", "queued")] == 3
    assert read()["masksmith_queue_depth", ("queue", "masksmith.cpu")] == 3
    lease = take(records, second, 0, lease_s=30, attempts=3)
    assert (read()[state("masks", "queued")], read()[state("masks", "running")]) == (2, 1)
    records.cancel(second)
    records.cancel(second)
    assert records.complete(lease, ShardReport()) is False
    work(records, settings, first)
    found = read()
    assert [found[state("masks", word)] for word in ("queued", "canceled", "succeeded")] == [1, 1, 1]
    assert state("masks", "running") not in found
    client.delete(f"/v1/jobs/{first}")
    client.delete(f"/v1/jobs/{third}")
    found = read()
    assert [key[2][1] for key in found if key[0] == "masksmith_jobs"] == ["canceled"]
    ended = {key[2][1]: value for key, value in found.items() if key[0] == "masksmith_jobs_ended_total"}
    assert ended == {"canceled": 2, "succeeded": 1}


def test_shards_are_observed_once_and_remembered_ones_apart(records, settings, read, submit):
    for device in ("cpu", "cuda:0"):
        assert work(records, settings, submit()["id"], device) == ["completed"]
    found = read()
    outcome = {key[1:]: value for key, value in found.items() if key[0] == "masksmith_shards_total"}
    assert outcome == {
        (("device", "cpu"), ("outcome", "solved")): 1,
        (("device", "cpu"), ("outcome", "remembered")): 1,
    }
    assert found["masksmith_shard_seconds_count", ("device", "cpu")] == 1
    assert 0 < found["masksmith_shard_seconds_sum", ("device", "cpu")] < 30
    assert found["masksmith_shard_seconds_bucket", ("device", "cpu"), ("le", "+Inf")] == 1
    assert found["masksmith_shard_gap_bucket", ("le", "0.0")] == 1


def test_histograms_add_up(records, read, submit):
    reports = [(0.02, 1.0, 1.0), (0.05, 99.0, 100.0), (7.0, 1.0, 2.0), (1e6, 0.0, 0.0)]
    for took_s, objective, bound in reports:
        lease = take(records, submit()["id"], 0, lease_s=30, attempts=3)
        assert records.complete(
            lease, ShardReport(result="r", objective=objective, upper_bound=bound, device="cpu"), took_s
        )
    found = read()
    for bound in SECONDS_BOUNDS:
        below = sum(took_s <= bound for took_s, *_ in reports)
        assert found["masksmith_shard_seconds_bucket", ("device", "cpu"), ("le", str(bound))] == below
    assert found["masksmith_shard_seconds_sum", ("device", "cpu")] == pytest.approx(1e6 + 7.07)
    for bound in GAP_BOUNDS:
        below = sum(0 if b == 0 else (b - o) / b <= bound for _, o, b in reports) + 1
        assert found["masksmith_shard_gap_bucket", ("le", str(bound))] == below
    assert found["masksmith_shard_gap_count",] == 4


def test_infinite_gaps_are_not_observed(records, read, submit):
    for number in (float("nan"), float("inf")):
        lease = take(records, submit()["id"], 0, lease_s=30, attempts=3)
        assert records.complete(lease, ShardReport(result="r", objective=number, upper_bound=number, device="cpu"), 1.0)
    found = read()
    assert found["masksmith_shards_total", ("device", "cpu"), ("outcome", "solved")] == 2
    assert found["masksmith_shard_gap_count",] == 0


def test_failures_count_as_such(records, read, submit):
    lease = take(records, submit()["id"], 0, lease_s=30, attempts=3)
    records.complete(lease, ShardReport(error=TensorError(code="invalid_scores", message="NaN")))
    exhausted = submit()["id"]
    lease = take(records, exhausted, 0, lease_s=30, attempts=1)
    records.release(lease)
    assert take(records, exhausted, 0, lease_s=30, attempts=1) == "exhausted"
    found = read()
    assert sum(value for key, value in found.items() if key[0] == "masksmith_shards_total") == 2
    assert found[state("masks", "failed")] == 2
    assert found["masksmith_shard_gap_count",] == 0


@pytest.mark.parametrize("error", [WeightError("NaN"), RuntimeError("unexpected")])
def test_failures_have_the_device_of_their_worker(records, settings, read, submit, monkeypatch, error):
    def fail(_work):
        raise error

    monkeypatch.setattr("masksmith_worker.runner.score_shard", fail)
    runner = ShardRunner(records, BlobStore(settings.store_location), device="cuda:0", attempts=1)
    with nullcontext() if isinstance(error, WeightError) else pytest.raises(RuntimeError):
        run_shard(runner, submit()["id"], 0)
    shards = {key[1:]: value for key, value in read().items() if key[0] == "masksmith_shards_total"}
    assert shards == {(("device", "cuda:0"), ("outcome", "failed")): 1}


def test_bytes_and_workers(client, records, read, put, good):
    put(good)
    client.post("/v1/masks", params={"pattern": "2:4"}, content=good)
    assert client.post("/v1/masks", params={"pattern": "2:4"}, content=good[:-1]).status_code == 400
    for number in range(2):
        worker = {
            "name": f"w{number}",
            "device": "cuda:0",
            "device_name": "x",
            "slots": 3,
            "queues": [],
            "version": "1",
        }
        records.workers.announce(WorkerInfo(**worker, started_at="2026-01-01T00:00:00Z"))
    found = read()
    assert found["masksmith_upload_bytes_total",] == 2 * len(good)
    assert found["masksmith_workers", ("device", "cuda:0")] == 2
    assert found["masksmith_worker_slots", ("device", "cuda:0")] == 6


def without_memory(samples):
    """Leave out the broker's memory, which changes between two readings."""
    return {name: value for name, value in samples.items() if "masksmith_broker_bytes" not in str(name)}


def test_every_service_says_the_same_also_after_a_restart(records, settings, read, submit):
    work(records, settings, submit()["id"])
    here = without_memory(read())
    with TestClient(create_app(settings)) as other:
        assert without_memory(read(other)) == here


def test_gauges_are_for_admins(client, records, read):
    keys = Keys(records.redis)
    user, admin = (keys.create(role, role)[1] for role in (Role.USER, Role.ADMIN))
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers={"Authorization": f"Bearer {user}"}).status_code == 403
    assert read(Authorization=f"Bearer {admin}")


def test_prometheus_may_choose_the_format(client):
    modern = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert modern.headers["content-type"].startswith("application/openmetrics-text")
    assert modern.text.endswith("# EOF\n")


def test_the_guide_lists_every_metric(client, records, settings, submit):
    work(records, settings, submit()["id"])
    text = (DASHBOARD.parents[1] / "docs" / "operations.md").read_text()
    listed = set(re.findall(r"`(masksmith_\w+)", text.partition("## Metrics")[2].partition("## Memory")[0]))
    names = {line.split()[2] for line in client.get("/metrics").text.splitlines() if line.startswith("# TYPE")}
    assert listed == names


def test_the_dashboard_names_only_what_exists(client, records, settings, submit):
    # Enough has to happen for every metric to have a sample.
    work(records, settings, submit()["id"])
    records.workers.announce(
        WorkerInfo(
            name="w", device="cpu", device_name="x", slots=1, queues=[], version="1", started_at="2026-01-01T00:00:00Z"
        )
    )
    families = list(text_string_to_metric_families(client.get("/metrics").text))
    labels = {}
    for family in families:
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    panels = [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]
    shown = set()
    for panel in panels:
        assert panel["title"]
        for target in panel["targets"]:
            used = set(re.findall(r"\bmasksmith_\w+", target["expr"]))
            assert used, target
            assert used <= set(labels), target["expr"]
            named = set(re.findall(r"{{(\w+)}}", target.get("legendFormat", "")))
            named |= {
                word.strip() for part in re.findall(r"\bby \(([^)]*)\)", target["expr"]) for word in part.split(",")
            }
            known = set().union(*(labels[name] for name in used))
            assert named <= known, target
            shown |= {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}
    assert shown == {re.sub(r"_(bucket|sum|count)$", "", name) for name in labels}


def test_the_dashboard_shows_the_same_however_many_services_are_scraped():
    # All services return equal values, so that adding them up would multiply them. Quotients and quantiles stay equal.
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            if "histogram_quantile(" not in target["expr"] and " / " not in target["expr"]:
                assert re.match(r"(sum\()?max( by \([^)]*\) )?\(", target["expr"]), target["expr"]


def test_the_measures_of_a_real_solve_are_shown(client, records, settings, read, save):
    scores = np.random.default_rng(0).random((64, 64), dtype=np.float32)
    data = save({"w": scores})
    for solver in ("greedy", "exact"):
        query = {"pattern": "transposable 2:4", "scores": "given", "solver": solver}
        work(records, settings, client.post("/v1/masks", params=query, content=data).json()["id"])
    found = read()
    assert found["masksmith_shard_gap_bucket", ("le", "0.0")] == 1
    assert found["masksmith_shard_gap_bucket", ("le", "0.1")] == 2
