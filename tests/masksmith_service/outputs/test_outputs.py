"""Outputs of jobs by reference: the files that a local prune writes, complete or marked as unfinished."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from safetensors.numpy import load_file, save, save_file
from starlette.testclient import TestClient
from support.leases import run_shard
from support.output_jobs import FILES, MASKED, WEIGHTS, check_output, document, submit, work

import masksmith as ms
from masksmith_service.references import outputs
from masksmith_state.blobs.names import result_name, upload_name
from masksmith_state.errors import RootUnavailableError
from masksmith_state.jobs.outputs import NOTE_PREFIX
from masksmith_wire.output_names import JOURNAL_NAME, MASKS_NAME, RECORD_NAME


def test_an_output_is_the_model_with_zeros(app, runner, root, model, url, tmp_path):
    with TestClient(app) as client:
        job = submit(client, model, f"{url}/out")
        assert list(root.list("out")) == [JOURNAL_NAME]
        assert client.get(f"/v1/jobs/{job}/output").json()["code"] == "result_not_found"
        work(runner, job)
        view = client.get(f"/v1/jobs/{job}").json()
        assert view["state"] == "succeeded"
        assert view["output"] == {
            "location": f"{url}/out",
            "files": [{"name": name, "state": "succeeded", "error": None} for name in FILES],
        }
        assert client.get(f"/v1/jobs/{job}/output").json() == check_output(root, tmp_path)
        assert client.get(f"/v1/jobs/{job}/masks").status_code == 200
        page = client.get(f"/jobs/{job}").text
        assert f'Output <span class="mono">{url}/out</span>: 2 of 2 files of weights written</p>' in page


def test_a_file_may_have_the_longest_name_of_a_file_system(app, runner, root, url, tmp_path):
    name = "a" * 243 + ".safetensors"
    save_file(WEIGHTS, tmp_path / name)
    root.write(f"long/{name}", [(tmp_path / name).read_bytes()])
    with TestClient(app) as client:
        query = {"pattern": "2:4", "model": f"{url}/long", "output": f"{url}/out"}
        job = client.post("/v1/outputs", params=query).json()["id"]
        work(runner, job)
        assert client.get(f"/v1/jobs/{job}").json()["state"] == "succeeded"
    assert set(root.list("out")) == {name, MASKS_NAME, RECORD_NAME}


def test_a_record_of_another_job_is_not_that_of_this_one(app, runner, root, model, url):
    with TestClient(app) as client:
        first = submit(client, model, f"{url}/out")
        work(runner, first)
        for name in root.list("out"):
            root.delete(f"out/{name}")
        second = submit(client, model, f"{url}/out", pattern="1:4")
        work(runner, second)
        assert client.get(f"/v1/jobs/{second}/output").json()["totals"]["density"] == 0.25
        problem = client.get(f"/v1/jobs/{first}/output").json()
        assert (problem["status"], problem["code"]) == (404, "result_not_found")
        assert "the output of another job" in problem["detail"]


def test_files_are_written_by_the_worker_that_takes_them_first(app, runner, records, root, model, url, tmp_path):
    """Before any tensor is solved: what nobody has taken is solved where it is needed."""
    with TestClient(app) as client:
        job = submit(client, model, f"{url}/out")
    shards = records.shards(job)
    files = [index for index, shard in shards.items() if shard.file is not None]
    assert [shards[index].file for index in sorted(shards)].count(None) == 8
    work(runner, job, files[::-1])
    check_output(root, tmp_path)
    work(runner, job, [index for index in shards if index not in files])
    assert records.read(job).state == "succeeded"
    assert all(report.remembered for index, report in records.reports(job).items() if index not in files)


def test_what_is_solved_is_not_looked_up_again_unless_it_is_gone(
    app, runner, records, root, model, url, tmp_path, monkeypatch
):
    """The time between the last solve and the end of a job does not grow with the cost of a shard's stages."""
    again, stages = [], type(runner)._process_shard

    def counted(self, plan, job, index, *arguments):
        again.append(index)
        return stages(self, plan, job, index, *arguments)

    with TestClient(app) as client:
        job = submit(client, model, f"{url}/out")
    shards = records.shards(job)
    solving = [index for index, shard in shards.items() if shard.file is None]
    work(runner, job, solving)
    monkeypatch.setattr(type(runner), "_process_shard", counted)
    gone = solving[1]
    runner.store.delete(result_name(records.report(job, gone).result))
    work(runner, job, [index for index in shards if index not in solving])
    assert again == [gone]
    check_output(root, tmp_path)


def test_an_output_that_was_left_unfinished_goes_on(app, runner, records, root, model, url, tmp_path, monkeypatch):
    with TestClient(app) as client:
        first = submit(client, model, f"{url}/out")
        files = [index for index, shard in records.shards(first).items() if shard.file is not None]
        work(runner, first, files[:1])
        assert JOURNAL_NAME in root.list("out")
        written = root.stat("out/m-1.safetensors")
        client.post(f"/v1/jobs/{first}/cancel")
        second = submit(client, model, f"{url}/out")
        work(runner, second)
        check_output(root, tmp_path)
        # What was complete was not written again.
        assert root.stat("out/m-1.safetensors") == written
        # The same job once more finds a finished output, and changes nothing.
        states = {name: root.stat(f"out/{name}") for name in root.list("out")}
        third = submit(client, model, f"{url}/out")
        work(runner, third)
        assert {name: root.stat(f"out/{name}") for name in root.list("out")} == states


def test_temporary_files_of_killed_processes_are_no_content_and_are_deleted_at_the_end(
    app, runner, root, model, url, tmp_path
):
    """A service was killed before it renamed the marker, a worker while it wrote a file of a subfolder."""
    parts = [f"out/.{'0' * 32}.part", f"out/tokenizer/.{'1' * 32}.part"]
    root.write(parts[0], [b"half"])
    with TestClient(app) as client:
        job = submit(client, model, f"{url}/out")
        root.write(parts[1], [b"half"])
        work(runner, job)
        assert not any(name.endswith(".part") for name in root.list("out"))
        check_output(root, tmp_path)


@pytest.mark.parametrize("deletions", [0, 1, 2])
def test_a_worker_that_dies_while_it_finishes_is_replaced(
    app, runner, records, root, model, url, tmp_path, monkeypatch, deletions
):
    """The end of an output deletes its marker and its two notes."""
    deleted, delete = [], type(root).delete

    def breaking(self, path):
        if len(deleted) == deletions:
            raise RootUnavailableError(self.location(path), "away")
        deleted.append(path)
        delete(self, path)

    with TestClient(app) as client:
        job = submit(client, model, f"{url}/out")
    *others, last = sorted(records.shards(job))
    work(runner, job, others)
    monkeypatch.setattr(type(root), "delete", breaking)
    with pytest.raises(RootUnavailableError):
        run_shard(runner, job, last)
    monkeypatch.undo()
    work(runner, job, [last])
    check_output(root, tmp_path)


def test_a_complete_file_that_was_changed_is_named_and_not_overwritten(
    app, runner, records, root, model, url, tmp_path
):
    with TestClient(app) as client:
        first = submit(client, model, f"{url}/out")
        work(runner, first, [index for index, shard in records.shards(first).items() if shard.file is not None][:1])
        client.post(f"/v1/jobs/{first}/cancel")
        data = bytearray(root.get("out/m-1.safetensors", 2**20))
        data[-1] ^= 1
        root.write("out/m-1.safetensors", [data])
        second = submit(client, model, f"{url}/out")
        work(runner, second)
        error = client.get(f"/v1/jobs/{second}").json()["output"]["files"][0]["error"]
        assert error["code"] == "output_not_empty"
        assert f"'{url}/out/m-1.safetensors' is not as masksmith wrote it" in error["message"]
        assert root.get("out/m-1.safetensors", 2**20) == data
        root.delete("out/m-1.safetensors")
        work(runner, submit(client, model, f"{url}/out"))
        check_output(root, tmp_path)


@pytest.mark.parametrize("note", ["[" * 4000, "x" * 5000, "{}", '{"bytes": -1, "blake3": 1}'])
def test_a_note_that_masksmith_has_not_written_is_named(app, runner, records, root, model, url, tmp_path, note):
    with TestClient(app) as client:
        job = submit(client, model, f"{url}/out")
        solving = [index for index, shard in records.shards(job).items() if shard.file is None]
        root.write("out/m-1.safetensors", [(tmp_path / "m-1.safetensors").read_bytes()])
        root.write(f"out/{NOTE_PREFIX}m-1.safetensors.json", [note.encode()])
        work(runner, job, solving)
        work(runner, job, [index for index in records.shards(job) if index not in solving])
        error = client.get(f"/v1/jobs/{job}").json()["output"]["files"][0]["error"]
        assert error["code"] == "output_not_empty"
        assert f"'{url}/out/{NOTE_PREFIX}m-1.safetensors.json' is not as masksmith wrote it" in error["message"]
        root.delete(f"out/{NOTE_PREFIX}m-1.safetensors.json")
        work(runner, submit(client, model, f"{url}/out"))
        check_output(root, tmp_path)


def test_a_single_file_is_copied_alone(app, runner, root, model, url, tmp_path):
    """The output may be beside it, and nothing else is copied."""
    root.write("m-1.safetensors", [(tmp_path / "m-1.safetensors").read_bytes()])
    reference = f"{url}/m-1.safetensors"
    tensors = [{"name": name, "key": name, "reference": reference} for name in FILES["m-1.safetensors"]]
    given = {"pattern": "2:4", "tensors": tensors, "output": {"location": f"{url}/out", "model": reference}}
    with TestClient(app) as client:
        response = client.post("/v1/jobs", json=given)
        assert response.status_code == 202, response.text
        work(runner, response.json()["id"])
        given["output"]["location"] = url
        assert client.post("/v1/jobs", json=given).json()["code"] == "invalid_output"
    assert set(root.list("out")) == {"m-1.safetensors", MASKS_NAME, RECORD_NAME}


def test_a_failed_tensor_leaves_the_output_unfinished(app, runner, records, root, url, model, tmp_path):
    bad = {name: WEIGHTS[name].copy() for name in FILES["m-1.safetensors"]}
    bad[MASKED[1]][3, 5] = np.nan
    save_file(bad, tmp_path / "bad", {"format": "pt"})
    root.write("model/m-1.safetensors", [(tmp_path / "bad").read_bytes()])
    with TestClient(app) as client:
        job = submit(client, model, f"{url}/out")
        work(runner, job)
        view = client.get(f"/v1/jobs/{job}").json()
        page = client.get(f"/jobs/{job}").text
    assert "1 of 2 files of weights written; it is marked as unfinished</p>" in page
    assert "is not written: tensor" in page
    assert view["state"] == "failed"
    assert [tensor["state"] for tensor in view["tensors"]] == ["succeeded", "failed", "succeeded", "succeeded"]
    first, second = view["output"]["files"]
    assert (first["state"], second["state"]) == ("failed", "succeeded")
    assert first["error"]["code"] == "invalid_scores"
    assert MASKED[1] in first["error"]["message"]
    assert "m-1.safetensors" in first["error"]["message"]
    names = root.list("out")
    assert JOURNAL_NAME in names
    assert "m-2.safetensors" in names
    assert not {"m-1.safetensors", RECORD_NAME, MASKS_NAME} & set(names)


def test_a_damaged_upload_is_named_with_its_tensor_and_forgotten(app, runner, records, settings, root, model, url):
    """The worker that writes a file solves a tensor that nobody has taken."""
    data = save({f"{name}/norms": np.ones(48, np.float32) for name in MASKED})
    digest = blake3(data).hexdigest()
    with TestClient(app) as client:
        assert client.put(f"/v1/tensors/{digest}", content=data).status_code == 201
        job = submit(client, model, f"{url}/out", scores="wanda", calibration=digest)
        path = Path(settings.store_url, upload_name(digest))
        [file, _] = [index for index, shard in records.shards(job).items() if shard.file is not None]
        path.write_bytes(bytes(len(data)))
        work(runner, job, [file])
        error = client.get(f"/v1/jobs/{job}").json()["output"]["files"][0]["error"]
    assert error["code"] == "upload_damaged"
    assert "'m-1.safetensors' is not written: tensor 'model.layers.0." in error["message"]
    assert not records.redis.exists(f"masksmith:upload:{digest}:owners")


def test_a_file_that_changes_is_not_written(app, runner, records, root, url, model, tmp_path):
    with TestClient(app) as client:
        job = submit(client, model, f"{url}/out")
        solving = [index for index, shard in records.shards(job).items() if shard.file is None]
        work(runner, job, solving)
        root.write("model/m-2.safetensors", [(tmp_path / "m-2.safetensors").read_bytes() + b""])
        if not url.startswith("s3://"):
            os.utime(f"{url}/model/m-2.safetensors", ns=(1, 1))
        else:
            save_file({name: WEIGHTS[name] + 1 for name in FILES["m-2.safetensors"]}, tmp_path / "m", {"format": "pt"})
            root.write("model/m-2.safetensors", [(tmp_path / "m").read_bytes()])
        work(runner, job, [index for index in records.shards(job) if index not in solving])
        error = client.get(f"/v1/jobs/{job}").json()["output"]["files"][1]["error"]
    assert error["code"] == "reference_changed"
    assert "file 'm-2.safetensors' is not written" in error["message"]
    assert JOURNAL_NAME in root.list("out")
    assert "m-2.safetensors" not in root.list("out")


def test_a_write_that_breaks_off_is_tried_again(app, runner, records, root, url, model, tmp_path, monkeypatch):
    """As when a bucket goes away in the middle of a file."""
    calls = []
    read = type(root).read

    def breaking(self, path, start, stop, version):
        calls.append(path)
        if len(calls) == 30:
            raise RootUnavailableError(self.location(path), "away")
        return read(self, path, start, stop, version)

    monkeypatch.setattr(type(root), "read", breaking)
    runner._store_patience_s = 60.0
    with TestClient(app) as client:
        job = submit(client, model, f"{url}/out")
    calls.clear()
    work(runner, job)
    assert len(calls) > 30
    check_output(root, tmp_path)


def test_updated_weights_are_written(app, runner, records, root, url, model, tmp_path):
    inputs = np.random.default_rng(1).standard_normal((99, 48))
    save_file({f"{name}/gram": inputs.T @ inputs for name in MASKED}, tmp_path / "grams")
    root.write("grams.safetensors", [(tmp_path / "grams").read_bytes()])
    given = document(model, f"{url}/out", update="reconstruct")
    for tensor in given["tensors"]:
        tensor["gram"] = {"kind": "gram", "reference": f"{url}/grams.safetensors", "key": f"{tensor['name']}/gram"}
    with TestClient(app) as client:
        response = client.post("/v1/jobs", json=given)
        assert response.status_code == 202, response.text
        job = response.json()["id"]
        work(runner, job)
        assert client.get(f"/v1/jobs/{job}").json()["state"] == "succeeded"
        (tmp_path / "weights").write_bytes(client.get(f"/v1/jobs/{job}/weights").content)
    updated = load_file(tmp_path / "weights")
    for file, names in FILES.items():
        (tmp_path / "read").write_bytes(root.get(f"out/{file}", 2**20))
        written = load_file(tmp_path / "read")
        for name in names:
            assert np.array_equal(written[name], updated.get(name, WEIGHTS[name])), name
    for name in MASKED:
        weight = WEIGHTS[name]
        mask = ms.solve(ms.magnitude(weight), "2:4").mask
        errors = [np.linalg.norm(inputs @ (weight - other).T) for other in (updated[name], weight * mask)]
        assert errors[0] < errors[1]


def test_memory_for_a_record_is_reserved_and_it_is_not_parsed(app, runner, root, model, url, tmp_path):
    """A stranger's record with a million empty lists would take hundreds of times its size."""
    with TestClient(app) as client:
        job = submit(client, model, f"{url}/out")
        work(runner, job)
        record = client.get(f"/v1/jobs/{job}/output").json()
        text = json.dumps(record | {"more": [[]] * 10**5}).encode()
        root.write("out/masksmith.json", [text])
        memory, reserved = app.state.masksmith.capacities.memory, []
        acquire = memory.acquire

        async def record_acquire(key, amount):
            reserved.append(amount)
            await acquire(key, amount)

        memory.acquire = record_acquire
        assert client.get(f"/v1/jobs/{job}/output").content == text
        assert 2 * len(text) in reserved
        reserved.clear()
        again = submit(client, model, f"{url}/out")
        assert 2 * len(text) in reserved
        assert again != job
        root.write("out/masksmith.json", [b"[]"])
        assert client.get(f"/v1/jobs/{job}/output").json()["code"] == "result_not_found"


def test_a_record_that_is_too_large_is_refused_as_such(app, runner, root, model, url, monkeypatch):
    """Not with a request to try again because of the memory that it would take."""
    with TestClient(app) as client:
        job = submit(client, model, f"{url}/out")
        work(runner, job)
        memory = app.state.masksmith.capacities.memory
        memory.held_by_key["others"] = memory.total
        root.write("out/masksmith.json", [b"{}", b" " * 1000])
        monkeypatch.setattr(outputs, "MAX_RECORD_BYTES", 1000)
        problem = client.get(f"/v1/jobs/{job}/output").json()
    assert (problem["status"], problem["code"]) == (422, "invalid_reference")
    assert "at most 1000 are read" in problem["detail"]
