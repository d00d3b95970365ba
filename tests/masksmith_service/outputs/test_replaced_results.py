"""Files of weights, masks and record of an output have the same masks, also if a result was computed again otherwise.

A few results differ between processors: those of `admm`, and updated weights.
"""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from starlette.testclient import TestClient
from support.output_jobs import FILES, MASKED, WEIGHTS, submit, work

from masksmith_state.blobs.names import result_name, result_report_name
from masksmith_wire.output_names import JOURNAL_NAME, MASKS_NAME, RECORD_NAME


@pytest.fixture
def replace(runner, records):
    """Store another mask as the result of a shard, as a worker on another processor would for another job."""

    def replace(job, index):
        report = records.report(job, index)
        mask = bytes(byte ^ 0xFF for byte in runner.store.get(result_name(report.result)))
        digest = runner.store.put(result_name(report.result), mask)
        other = report.model_copy(update={"mask_digest": digest})
        runner.store.put_sealed(result_report_name(report.result), other.model_dump_json().encode())
        return mask

    return replace


def shards_of(records, job):
    """Indices of the shards that solve, and of those that write files."""
    shards = records.shards(job)
    files = [index for index in sorted(shards) if shards[index].file is not None]
    return [index for index in sorted(shards) if index not in files], files


def check_consistency(root, tmp_path):
    """The masks file has the masks of which the files of weights were made."""
    (tmp_path / "masks").write_bytes(root.get(f"out/{MASKS_NAME}", 2**20))
    masks = load_file(tmp_path / "masks")
    for file, names in FILES.items():
        (tmp_path / "read").write_bytes(root.get(f"out/{file}", 2**20))
        written = load_file(tmp_path / "read")
        for name in names:
            mask = np.unpackbits(masks[name], axis=-1, bitorder="little") if name in MASKED else True
            assert np.array_equal(written[name], WEIGHTS[name] * mask), name
    assert JOURNAL_NAME not in root.list("out")
    assert "results" not in json.loads(root.get(f"out/{RECORD_NAME}", 2**20))["outputs"]["m-1.safetensors"]


def test_a_complete_file_is_written_again_if_its_results_were_replaced(
    app, runner, records, root, model, url, tmp_path, replace
):
    with TestClient(app) as client:
        first = submit(client, model, f"{url}/out")
        solving, files = shards_of(records, first)
        work(runner, first, [*solving, files[0]])
        client.post(f"/v1/jobs/{first}/cancel")
        written = root.get("out/m-1.safetensors", 2**20)
        replace(first, solving[0])
        work(runner, submit(client, model, f"{url}/out"))
    assert root.get("out/m-1.safetensors", 2**20) != written
    check_consistency(root, tmp_path)


@pytest.mark.parametrize("files_before", [0, 1])
def test_an_output_never_has_two_results_of_one_shard(
    app, runner, records, root, model, url, tmp_path, replace, files_before
):
    """The result is replaced before the first file is written, or after it, which is before the masks are written."""
    with TestClient(app) as client:
        first = submit(client, model, f"{url}/out")
        solving, files = shards_of(records, first)
        work(runner, first, [*solving, *files[:files_before]])
        mask = replace(first, solving[0])
        work(runner, first, files[files_before:])
        output = client.get(f"/v1/jobs/{first}").json()["output"]
        errors = [file["error"] for file in output["files"] if file["error"] is not None]
        assert [error["code"] for error in errors] == ["result_damaged"], output
        assert "replaced meanwhile; submit the job again" in errors[0]["message"]
        assert JOURNAL_NAME in root.list("out")
        second = submit(client, model, f"{url}/out")
        work(runner, second)
        assert client.get(f"/v1/jobs/{second}").json()["state"] == "succeeded"
    assert runner.store.get(result_name(records.report(second, solving[0]).result)) == mask
    check_consistency(root, tmp_path)
