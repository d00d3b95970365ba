"""`masksmith jobs masks|weights|report`: results that are fetched later."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from masksmith.benchmark import Report
from masksmith_client import Client
from masksmith_client.cli.app import run
from masksmith_client.cli.bench_report import save_and_show
from masksmith_wire.digests import digest_bytes, digests_metadata
from masksmith_wire.documents import JobState

from .conftest import FakeService, some_mask

pytestmark = pytest.mark.usefixtures("connected")
WEIGHT = np.arange(64, dtype=np.float32).reshape(8, 8)


@pytest.fixture
def job(client: Client, service: FakeService) -> str:
    """A job that has ended."""
    job = client.jobs.submit({"a": WEIGHT, "b": WEIGHT + 1}, "2:4", name="mine", layers="a").id
    service.finish(job)
    return job


def test_weights(service: FakeService, job: str, tmp_path: Path, capsys: Any) -> None:
    updated = WEIGHT * some_mask([8, 8])
    metadata = digests_metadata({"a": [(8, digest_bytes(updated.tobytes()))]})
    service.results["weights"] = safetensors.numpy.save({"a": updated}, metadata)
    path = tmp_path / "weights.safetensors"
    assert run(["jobs", "weights", job, "-o", str(path)]) == 0
    assert f"1 weight(s) -> {path}" in capsys.readouterr().out
    np.testing.assert_array_equal(safetensors.numpy.load_file(path)["a"], updated)
    assert run(["jobs", "weights", job, "-o", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"id": job, "output": str(path), "weights": ["a"]}
    assert run(["jobs", "weights", job, "-o", str(tmp_path)]) == 2


def test_masks_are_downloaded_once_for_both_outputs(service: FakeService, tmp_path: Path) -> None:
    """The weights are checked against the masks that were written."""
    model, statistics = tmp_path / "model.safetensors", tmp_path / "statistics.safetensors"
    masks, weights = tmp_path / "masks.safetensors", tmp_path / "weights.safetensors"
    updated = WEIGHT * some_mask([8, 8])
    safetensors.numpy.save_file({"a": WEIGHT}, model)
    safetensors.numpy.save_file({"a/gram": np.eye(8)}, statistics)
    metadata = digests_metadata({"a": [(8, digest_bytes(updated.tobytes()))]})
    service.results["weights"] = safetensors.numpy.save({"a": updated}, metadata)
    options = ["--update", "reconstruct", "--calibration", str(statistics), "--weights-out", str(weights)]
    assert run(["solve", str(model), "-p", "2:4", "-o", str(masks), *options]) == 0
    np.testing.assert_array_equal(safetensors.numpy.load_file(weights)["a"], updated)
    paths = [request.url.path.rpartition("/")[2] for request in service.requests]
    assert (paths.count("masks"), paths.count("weights")) == (1, 1)


def test_the_report_of_masks_is_that_of_solve(job: str, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "report.json"
    assert run(["jobs", "report", job, "-o", str(path)]) == 0
    assert "1 tensor(s), 2:4: 50.00% of entries keep 75.00% of the score" in capsys.readouterr().out
    assert run(["jobs", "report", job, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["job"] == job
    assert json.loads(path.read_text())["tensors"] == printed["tensors"]
    assert run(["jobs", "report", job, "-o", str(tmp_path / "report.csv")]) == 2
    assert "is not a benchmark" in capsys.readouterr().err


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELED])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_report_of_a_job_without_success_is_exit_code_one(
    service: FakeService, job: str, tmp_path: Path, capsys: Any, state: JobState, options: list[str]
) -> None:
    service.jobs[job] = service.jobs[job].model_copy(update={"state": state})
    assert run(["jobs", "report", job, "-o", str(tmp_path / "report.json"), *options]) == 1
    printed = capsys.readouterr()
    assert f"masksmith: job {job} is {state.value}" in printed.err
    assert json.loads((tmp_path / "report.json").read_text())["job"] == job
    if options:
        assert json.loads(printed.out)["job"] == job


def test_the_report_of_a_live_job_is_refused(service: FakeService, client: Client, capsys: Any) -> None:
    job = client.jobs.submit({"a": WEIGHT}, "2:4").id
    assert service.jobs[job].state is JobState.QUEUED
    assert run(["jobs", "report", job]) == 1
    assert f"'masksmith jobs watch {job}' waits for it" in capsys.readouterr().err


def test_the_report_of_a_benchmark_is_that_of_bench(
    service: FakeService, job: str, tmp_path: Path, capsys: Any
) -> None:
    service.jobs[job] = service.jobs[job].model_copy(update={"kind": "benchmark"})
    document = Report([], {"device": "cpu"}).document()
    service.results["benchmark"] = json.dumps(document).encode()
    paths = [tmp_path / "report.json", tmp_path / "report.csv"]
    assert run(["jobs", "report", job, "--json", *(f"--output={path}" for path in paths)]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(paths[0].read_text()) == document
    assert paths[1].exists()
    assert run(["jobs", "report", job, "-o", str(tmp_path / "report.txt")]) == 2


@pytest.mark.parametrize("as_json", [True, False])
def test_a_benchmark_is_printed_also_if_a_file_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, as_json: bool
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("masksmith_client.cli.bench_report.atomic_write", full)
    report = Report([], {"device": "cpu"})
    with pytest.raises(OSError, match="No space left"):
        save_and_show(report, [tmp_path / "report.json"], as_json=as_json)
    printed = capsys.readouterr().out
    if as_json:
        assert json.loads(printed) == report.document()
    else:
        assert printed
