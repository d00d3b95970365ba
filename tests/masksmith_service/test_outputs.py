"""Outputs of jobs by reference: the files that a local prune writes, complete or marked as unfinished."""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import redis
from safetensors.numpy import load_file, save_file
from starlette.testclient import TestClient
from support.buckets import BUCKET, Bucket
from support.leases import run_shard

import masksmith as ms
from masksmith_service.app import create_app
from masksmith_service.references import outputs
from masksmith_state.blobs.names import result_name
from masksmith_state.blobs.store import BlobStore
from masksmith_state.errors import FullError, RootUnavailableError
from masksmith_state.jobs.records import JobRecords
from masksmith_state.jobs.redis_keys import output_lock_key
from masksmith_state.keys import Keys, Role
from masksmith_state.roots.roots import Roots
from masksmith_state.roots.setting import RootSetting
from masksmith_wire.output_names import JOURNAL_NAME, MASKS_NAME, RECORD_NAME
from masksmith_worker.runner import ShardRunner

RNG = np.random.default_rng(7)
WEIGHTS = {
    f"model.layers.{layer}.{part}.weight": RNG.standard_normal((32, 48)).astype(np.float32)
    for layer in range(2)
    for part in ("q_proj", "k_proj")
} | {"norm.weight": np.ones(48, np.float32)}
MASKED = [name for name in WEIGHTS if name != "norm.weight"]
FILES = {"m-1.safetensors": MASKED[:2], "m-2.safetensors": [*MASKED[2:], "norm.weight"]}


@pytest.fixture(scope="module")
def bucket():
    with Bucket() as bucket:
        yield bucket


@pytest.fixture(params=["directory", "bucket"])
def url(request, tmp_path, monkeypatch):
    if request.param == "directory":
        (tmp_path / "root").mkdir()
        return str(tmp_path / "root")
    for name, value in request.getfixturevalue("bucket").environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{tmp_path.name}"


@pytest.fixture
def settings(settings, url):
    root = RootSetting(url=url, read=["ann", "bob"], write=["bob"])
    return settings.model_copy(update={"roots": [root], "max_tensors": 20, "shard_bytes": 16 * 48 * 4})


@pytest.fixture
def root(url):
    return Roots([RootSetting(url=url)]).find(url)[1]


@pytest.fixture
def model(root, url, tmp_path):
    """A sharded model with an index, a config, a tokenizer, and the same weights once more as a pickle."""
    for file, names in FILES.items():
        save_file({name: WEIGHTS[name] for name in names}, tmp_path / file, {"format": "pt"})
        root.write(f"model/{file}", [(tmp_path / file).read_bytes()])
    weight_map = {name: file for file, names in FILES.items() for name in names}
    root.write("model/model.safetensors.index.json", [json.dumps({"weight_map": weight_map}).encode()])
    root.write("model/config.json", [b'{"model_type": "llama"}'])
    root.write("model/tokenizer/merges.txt", [b"a b"])
    root.write("model/pytorch_model.bin", [b"pickle"])
    root.write("model/.cache/hidden", [b"hidden"])
    return f"{url}/model"


@pytest.fixture
def runner(records, settings):
    return ShardRunner(records, BlobStore(settings.store_url), lease_s=30.0, roots=Roots(settings.roots))


def document(model, output, **more):
    files = {name: file for file, names in FILES.items() for name in names}
    tensors = [{"name": name, "key": name, "reference": f"{model}/{files[name]}"} for name in MASKED]
    return {"pattern": "2:4", "tensors": tensors, "output": {"location": output, "model": model}} | more


def submit(client, *arguments, headers=None, **more):
    response = client.post("/v1/jobs", json=document(*arguments, **more), headers=headers)
    assert response.status_code == 202, response.text
    return response.json()["id"]


def work(runner, job, indices=None):
    for index in indices if indices is not None else sorted(runner.records.shards(job)):
        assert run_shard(runner, job, index) == "completed"


def check_output(root, tmp_path, folder="out", pattern="2:4"):
    """Every file is the model's, with the library's masks as zeros; nothing else is there."""
    names = set(root.list(folder))
    assert names == {
        *FILES, "model.safetensors.index.json", "config.json", "tokenizer/merges.txt", MASKS_NAME, RECORD_NAME
    }  # fmt: skip
    for file, tensors in FILES.items():
        (tmp_path / "read").write_bytes(root.get(f"{folder}/{file}", 2**20))
        assert root.stat(f"{folder}/{file}").size == root.stat(f"model/{file}").size
        for name in tensors:
            mask = ms.solve(ms.magnitude(WEIGHTS[name]), pattern).mask if name in MASKED else True
            assert np.array_equal(load_file(tmp_path / "read")[name], WEIGHTS[name] * mask), name
    (tmp_path / "masks").write_bytes(root.get(f"{folder}/{MASKS_NAME}", 2**20))
    assert list(load_file(tmp_path / "masks")) == MASKED
    record = json.loads(root.get(f"{folder}/{RECORD_NAME}", 2**20))
    assert sorted(each["name"] for each in record["tensors"] if each["masked"]) == sorted(MASKED)
    assert record["totals"]["gap"] == 0.0
    assert record["totals"]["density"] == 0.5
    assert record["not_copied"] == ["pytorch_model.bin"]
    assert record["model_type"] == "llama"
    return record


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


def test_files_are_written_by_whoever_takes_them_first(app, runner, records, root, model, url, tmp_path):
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
    again, stages = [], type(runner)._report

    def counted(self, plan, job, index, *arguments):
        again.append(index)
        return stages(self, plan, job, index, *arguments)

    with TestClient(app) as client:
        job = submit(client, model, f"{url}/out")
    shards = records.shards(job)
    solving = [index for index, shard in shards.items() if shard.file is None]
    work(runner, job, solving)
    monkeypatch.setattr(type(runner), "_report", counted)
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


@pytest.mark.parametrize("state", ["unfinished", "finished"])
def test_the_output_of_another_command_is_refused(app, runner, root, model, url, state, records):
    with TestClient(app) as client:
        job = submit(client, model, f"{url}/out")
        if state == "finished":
            work(runner, job)
        before = {name: root.stat(f"out/{name}") for name in root.list("out")}
        for more in ({"pattern": "1:4"}, {"scores": "magnitude power=2"}):
            problem = client.post("/v1/jobs", json=document(model, f"{url}/out", **more)).json()
            assert (problem["status"], problem["code"]) == (409, "output_not_empty")
            assert "another command" in problem["detail"]
        assert {name: root.stat(f"out/{name}") for name in root.list("out")} == before


def test_masks_are_compared_with_those_of_an_earlier_output(app, runner, root, model, url, tmp_path):
    """`previous` names an output or its masks file; the record counts the entries that changed."""
    with TestClient(app) as client:
        work(runner, submit(client, model, f"{url}/out"))
        for number, previous in enumerate((f"{url}/out", f"{url}/out/{MASKS_NAME}")):
            job = submit(client, model, f"{url}/out-{number}", pattern="1:4", previous=previous)
            work(runner, job)
            record = client.get(f"/v1/jobs/{job}/output").json()
            assert record["previous"] == previous
            changes = {each["name"]: each.get("change") for each in record["tensors"]}
            for name in MASKED:
                before, after = (ms.solve(ms.magnitude(WEIGHTS[name]), text).mask for text in ("2:4", "1:4"))
                dropped = int((before & ~after).sum())
                assert changes[name] == {
                    "sad": dropped, "added": 0, "dropped": dropped, "flip_rate": dropped / before.size
                }  # fmt: skip
            assert changes["norm.weight"] is None
            tensors = client.get(f"/v1/jobs/{job}").json()["tensors"]
            assert [each["change"] for each in tensors] == [changes[name] for name in MASKED]


def test_previous_masks_that_change_fail_their_tensors(app, runner, records, root, model, url):
    with TestClient(app) as client:
        work(runner, submit(client, model, f"{url}/out"))
        job = submit(client, model, f"{url}/later", pattern="1:4", previous=f"{url}/out")
        root.write(f"out/{MASKS_NAME}", [root.get(f"out/{MASKS_NAME}", 2**20) + b"1"])
        work(runner, job, [0])
        error = client.get(f"/v1/jobs/{job}").json()["tensors"][0]["error"]
    assert error["code"] == "reference_changed"
    assert f"{url}/out/{MASKS_NAME}" in error["message"]


@pytest.mark.parametrize(
    ("previous", "code", "reason"),
    [
        ("{url}/nowhere", "reference_not_found", "masks.safetensors"),
        ("{url}/model/m-1.safetensors", "invalid_previous", "is not a masks file"),
        ("/elsewhere/masks.safetensors", "root_not_found", "is in no root"),
        ("{url}/../masks.safetensors", "invalid_reference", "its part '..'"),
        ("elsewhere", "invalid_document", "previous"),
    ],
)
def test_previous_masks_that_cannot_be_are_named_at_once(app, records, root, model, url, previous, code, reason):
    with TestClient(app) as client:
        given = document(model, f"{url}/out", previous=previous.format(url=url))
        problem = client.post("/v1/jobs", json=given).json()
    assert problem["code"] == code, problem
    assert reason in problem["detail"]
    assert records.live_count() == 0
    assert root.list("out") == {}


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


def test_a_directory_with_something_else_is_refused(app, root, model, url, records):
    root.write("out/thesis.tex", [b"1"])
    with TestClient(app) as client:
        problem = client.post("/v1/jobs", json=document(model, f"{url}/out")).json()
    assert (problem["status"], problem["code"]) == (409, "output_not_empty")
    assert "something else (thesis.tex)" in problem["detail"]
    assert list(root.list("out")) == ["thesis.tex"]
    assert records.live_count() == 0


@pytest.mark.parametrize(
    ("output", "more", "code", "reason"),
    [
        ("{url}", {}, "invalid_output", "a root itself"),
        ("{url}/model", {}, "invalid_output", "contain each other"),
        ("{url}/model/out", {}, "invalid_output", "contain each other"),
        ("{url}/out", {"time_limit_s": 5}, "invalid_output", "time_limit_s"),
        ("/elsewhere/out", {}, "root_not_found", "that you may write"),
        ("{url}/../out", {}, "invalid_reference", "its part '..'"),
    ],
)
def test_an_output_that_cannot_be_is_named_at_once(app, model, url, output, more, code, reason, records):
    with TestClient(app) as client:
        problem = client.post("/v1/jobs", json=document(model, output.format(url=url), **more)).json()
    assert problem["code"] == code, problem
    assert reason in problem["detail"]
    assert records.live_count() == 0


def test_tensors_of_another_model_are_refused(app, root, model, url, tmp_path):
    root.write("other/m-1.safetensors", [(tmp_path / "m-1.safetensors").read_bytes()])
    given = document(model, f"{url}/out")
    given["tensors"][0]["reference"] = f"{url}/other/m-1.safetensors"
    with TestClient(app) as client:
        problem = client.post("/v1/jobs", json=given).json()
    assert problem["code"] == "invalid_output"
    assert repr(MASKED[0]) in problem["detail"]
    assert root.list("out") == {}


def test_a_quantised_model_is_refused(app, root, model, url):
    root.write("model/config.json", [b'{"quantization_config": {"quant_method": "gptq"}}'])
    with TestClient(app) as client:
        problem = client.post("/v1/jobs", json=document(model, f"{url}/out")).json()
    assert problem["code"] == "invalid_output"
    assert "quantised" in problem["detail"]


@pytest.mark.parametrize("url", ["bucket"], indirect=True)
def test_a_file_that_is_larger_than_an_object_may_be_is_named_at_once(app, root, model, url, monkeypatch):
    monkeypatch.setattr("masksmith_service.references.outputs.MAX_OBJECT_BYTES", 1000)
    with TestClient(app) as client:
        problem = client.post("/v1/jobs", json=document(model, f"{url}/out")).json()
    assert problem["code"] == "invalid_output"
    assert "'m-1.safetensors' has more than the 1000 bytes" in problem["detail"]


def test_only_keys_with_the_right_may_write(app, records, root, model, url):
    keys = Keys(records.redis)
    tokens = {name: keys.create(name, Role.USER)[1] for name in ("ann", "bob")}
    with TestClient(app) as client:
        ann, bob = ({"Authorization": f"Bearer {token}"} for token in tokens.values())
        problem = client.post("/v1/jobs", json=document(model, f"{url}/out"), headers=ann).json()
        assert (problem["status"], problem["code"]) == (403, "forbidden")
        assert "key 'ann' may not write the root" in problem["detail"]
        assert root.list("out") == {}
        submit(client, model, f"{url}/out", headers=bob)


def test_a_job_that_is_refused_leaves_no_mark(settings, root, model, url):
    with TestClient(create_app(settings.model_copy(update={"max_live_jobs": 1}))) as client:
        submit(client, model, f"{url}/out")
        problem = client.post("/v1/jobs", json=document(model, f"{url}/other")).json()
        assert problem["code"] == "too_many_jobs"
    assert root.list("other") == {}


def test_a_refused_request_leaves_the_mark_of_one_that_is_equal(app, runner, root, model, url, tmp_path, monkeypatch):
    """Both claim the output, the second while the first is being recorded; the first one is refused then."""
    create, entered, answered = JobRecords.create, threading.Event(), threading.Event()

    def slow(self, *arguments):
        if entered.is_set():
            return create(self, *arguments)
        entered.set()
        answered.wait(1.0)
        raise FullError("jobs", 1)

    monkeypatch.setattr(JobRecords, "create", slow)
    with TestClient(app) as client, ThreadPoolExecutor() as pool:
        first = pool.submit(client.post, "/v1/jobs", json=document(model, f"{url}/out"))
        assert entered.wait(30)
        second = pool.submit(submit, client, model, f"{url}/out")
        second.add_done_callback(lambda _: answered.set())
        assert first.result().json()["code"] == "too_many_jobs"
        job = second.result()
        assert list(root.list("out")) == [JOURNAL_NAME]
        work(runner, job)
    check_output(root, tmp_path)


def test_a_request_does_not_wait_long_for_others_to_the_same_output(app, records, model, url, monkeypatch):
    monkeypatch.setattr(outputs, "TURN_WAIT_S", 0.1)
    with TestClient(app) as client, records.redis.lock(output_lock_key(f"{url}/out"), timeout=60):
        response = client.post("/v1/jobs", json=document(model, f"{url}/out"))
        submit(client, model, f"{url}/other")
    assert (response.status_code, response.json()["code"]) == (503, "overloaded")
    assert f"{url}/out" in response.json()["detail"]


def test_a_mark_stays_if_the_broker_does_not_say_whether_the_job_is_recorded(app, root, model, url, monkeypatch):
    def lost(self, *arguments):
        raise redis.ConnectionError("the answer was lost")

    monkeypatch.setattr(JobRecords, "create", lost)
    with TestClient(app) as client:
        assert client.post("/v1/jobs", json=document(model, f"{url}/out")).json()["code"] == "broker_unavailable"
    assert list(root.list("out")) == [JOURNAL_NAME]


def test_a_tensor_that_fails_leaves_its_file_and_the_mark(app, runner, records, root, url, model, tmp_path):
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
