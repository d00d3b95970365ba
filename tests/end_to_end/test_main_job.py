import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from support.processes import poll

import masksmith as ms
from masksmith_client import JobFailedError, StatusError
from masksmith_client.cli.app import run as masksmith
from masksmith_wire.masks import read_infos, unpack

PATTERN = "transposable 8:16"
MASKSMITH = Path(sys.executable).with_name("masksmith")


def events(stack, job, **headers):
    """Read a job's events to the end: (id, kind, data)."""
    found, lines = [], {}
    with stack.http.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                lines[name] = value
            elif lines:
                found.append((lines["id"], lines["event"], json.loads(lines["data"])))
                lines = {}
    return found


@pytest.mark.parametrize("solver", ["auto", "min-cost-flow"])
def test_real_layers_get_proved_optimal_masks(client, layers, solver):
    masks = client.solve(layers, PATTERN, solver=solver)
    assert set(masks) == set(layers)
    for report in masks.job.document.tensors:
        assert (report.status, report.gap) == ("optimal", 0.0)
        assert report.objective == report.upper_bound
        assert report.density == 0.5
        assert 0.5 < report.retained < 1.0
    for name, mask in masks.items():
        assert ms.verify(mask, PATTERN).ok
        local = ms.solve(ms.magnitude(layers[name]), PATTERN, solver, threads=1)
        assert (mask == local.mask).all()


def test_a_second_time_is_free(stack, client, layers):
    first = client.solve(layers, PATTERN)
    before = set((stack.folder / "store").rglob("*"))
    again = client.solve(layers, PATTERN)
    assert set((stack.folder / "store").rglob("*")) == before
    assert all((first[name] == again[name]).all() for name in first)


def test_the_command_line_solves_and_verifies(stack, model_path, layers, tmp_path):
    out = tmp_path / "masks.safetensors"
    chosen = [word for name in layers for word in ("--layers", name)]
    command = [MASKSMITH, "solve", model_path, "-p", PATTERN, "-o", out, "--url", stack.url, *chosen, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=stack.environment, check=False)
    assert done.returncode == 0, done.stderr
    command = [MASKSMITH, "verify", out, "--pattern", PATTERN]
    assert subprocess.run(command, capture_output=True, env=stack.environment, check=False).returncode == 0
    data = out.read_bytes()
    infos = read_infos(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"])
    packed = safetensors.numpy.load(data)
    assert set(packed) == set(layers)
    for name, weight in layers.items():
        mask = unpack(packed[name], infos[name].shape)
        assert (mask == ms.solve(ms.magnitude(weight), PATTERN).mask).all()


def test_one_shot_over_plain_http(stack, layers):
    response = stack.http.post(
        "/v1/masks", params={"pattern": PATTERN, "exclude": "*.intermediate.*"},
        content=safetensors.numpy.save(layers), headers={"Prefer": "wait=50"},
    )  # fmt: skip
    assert response.status_code == 200
    job = response.json()
    assert (job["state"], len(job["tensors"]), len(job["skipped"])) == ("succeeded", 3, 1)
    masks = safetensors.numpy.load(stack.http.get(f"/v1/jobs/{job['id']}/masks?format=bool").content)
    for name, mask in masks.items():
        assert (mask == ms.solve(ms.magnitude(layers[name]), PATTERN).mask).all()


def test_nan_in_one_layer_of_four(stack, client, layers):
    broken = {name: weight.copy() for name, weight in layers.items()}
    bad = next(name for name in broken if "intermediate" in name)
    broken[bad][1234, 56] = np.nan
    with pytest.raises(JobFailedError, match=bad) as caught:
        client.solve(broken, PATTERN)
    job = caught.value.job.document
    reports = {report.name: report for report in job.tensors}
    assert (job.state, reports[bad].state) == ("failed", "failed")
    assert (reports[bad].error.code, reports[bad].error.index) == ("invalid_scores", [1234, 56])
    assert f"{bad!r}: NaN at [1234, 56]" in reports[bad].error.message
    response = stack.http.get(f"/v1/jobs/{job.id}/masks?format=bool")
    assert response.status_code == 200
    found = safetensors.numpy.load(response.content)
    assert set(found) == set(layers) - {bad}
    for name, mask in found.items():
        assert reports[name].status == "optimal"
        assert (mask == ms.solve(ms.magnitude(layers[name]), PATTERN).mask).all()


def test_events_tell_everything_once_and_resume_anywhere(stack, submitted):
    found = events(stack, submitted.id)
    kinds = [(kind, data) for _, kind, data in found]
    total = submitted.refresh().document.progress.total
    assert kinds[:2] == [("state", {"state": "queued"}), ("state", {"state": "running"})]
    assert kinds[2:-1] == [("progress", {"done": done, "total": total}) for done in range(1, total + 1)]
    assert kinds[-1] == ("state", {"state": "succeeded"})
    assert events(stack, submitted.id, **{"Last-Event-ID": found[9][0]}) == found[10:]
    assert events(stack, submitted.id, **{"Last-Event-ID": found[-1][0]}) == []


def test_a_running_job_is_canceled_at_once_and_keeps_what_is_done(stack, client, layers, big):
    while len(big.weight) < 8192:
        big.enlarge()  # It is not solved to its end.
    job = client.jobs.submit({"a": next(iter(layers.values())), "big": big.weight}, big.pattern, solver="min-cost-flow")
    while job.refresh().document.tensors[0].state != "succeeded":
        assert not job.state.is_terminal
    first = job.cancel().document
    assert first.state == "canceled"
    assert first.progress.done < first.progress.total
    assert [tensor.state for tensor in first.tensors] == ["succeeded", "canceled"]
    assert job.cancel().document == first
    assert list(job.masks()) == ["a"]
    assert events(stack, job.id)[-1][1:] == ("state", {"state": "canceled"})
    # The workers are free again at once, and none of the canceled shards is still worked on.
    small = client.jobs.submit({"x": np.eye(64, dtype=np.float32)}, PATTERN)
    small.wait(240)
    assert job.refresh().document == first


def test_a_second_terminal_follows(stack, submitted, capsys):
    command = [MASKSMITH, "jobs", "watch", submitted.id, "--url", stack.url]
    plain = subprocess.run(command, capture_output=True, text=True, env=stack.environment, check=False, timeout=300)
    assert plain.returncode == 0, plain.stderr
    assert "succeeded" in plain.stdout
    capsys.readouterr()
    assert masksmith([*command[1:], "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["state"] == "queued"
    assert lines[-1]["state"] == "succeeded"


def test_deletion(stack, client, running):
    running.delete()
    assert stack.http.get(f"/v1/jobs/{running.id}").status_code == 404
    assert all(job.id != running.id for job in client.jobs.list())
    with pytest.raises(StatusError, match="job_not_found"):
        running.refresh()
    client.jobs.submit({"x": np.eye(48, dtype=np.float32)}, PATTERN).wait(240)
    # The other process of the worker may hold the lease of a shard until it sees that the job is gone.
    poll(lambda: not stack.valkey_client.keys(f"*{running.id}*"))


def test_a_bad_request_does_not_disturb_the_next_one_on_the_same_connection(stack, layers):
    data = safetensors.numpy.save(layers)
    for content, status in [(data[:-1], 400), (b"x" * 3_000_000, 400), (data, 200)]:
        response = stack.http.post("/v1/masks", params={"pattern": PATTERN}, content=content,
                                   headers={"Prefer": "wait=50"})  # fmt: skip
        assert response.status_code == status
    assert stack.http.post("/v1/masks?pattern=5:4", content=data).status_code == 422
    assert stack.http.get("/healthz").status_code == 200
    assert not list((stack.folder / "store").rglob("*#*"))
    assert not list((stack.folder / "store" / "incoming").iterdir())
