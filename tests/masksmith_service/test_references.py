"""Tensors by reference: who may name them, and what is refused before anything is queued."""

import json
import os
import struct

import numpy as np
import pytest
from safetensors.numpy import load, load_file, save_file
from starlette.testclient import TestClient
from support.shards import run_all

from masksmith_service.app import create_app
from masksmith_service.bounds.table import cost
from masksmith_service.errors import RequestError
from masksmith_state.blobs.store import BlobStore
from masksmith_state.keys import Keys, Role
from masksmith_state.roots.directory import DirectoryRoot
from masksmith_state.roots.roots import Roots
from masksmith_state.roots.setting import RootSetting
from masksmith_wire.errors import Code
from masksmith_wire.masks import MaskInfo, file_header, pack
from masksmith_worker.runner import ShardRunner

WEIGHT = np.arange(64, dtype=np.float32).reshape(8, 8)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def settings(settings, root):
    return settings.model_copy(
        update={"roots": [RootSetting(url=str(root), read=["ann", "bob"], write=["bob"])], "max_tensors": 20}
    )


@pytest.fixture
def model(root):
    """A sharded model: two files, an index, and a config."""
    folder = root / "model"
    folder.mkdir()
    files = {"a-1.safetensors": ["w1", "w2"], "a-2.safetensors": ["w3", "bias"]}
    for file, names in files.items():
        save_file({name: WEIGHT[0] if name == "bias" else WEIGHT + len(name) for name in names}, folder / file)
    weight_map = {name: file for file, names in files.items() for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def tensor(reference, key="w1", **members):
    return {"name": key, "reference": str(reference), "key": key} | members


def post(client, *tensors, headers=None, **members):
    return client.post("/v1/jobs", json={"pattern": "2:4", "tensors": list(tensors)} | members, headers=headers)


def test_a_model_is_listed(client, model):
    listing = client.get("/v1/references", params={"location": str(model)}).json()
    assert [(each["name"], each["file"].rpartition("/")[2]) for each in listing["tensors"]] == [
        ("w1", "a-1.safetensors"), ("w2", "a-1.safetensors"), ("w3", "a-2.safetensors"), ("bias", "a-2.safetensors")
    ]  # fmt: skip
    assert listing["tensors"][0]["shape"] == [8, 8]
    assert listing["config"] == {"model_type": "llama"}
    of_index = client.get("/v1/references", params={"location": f"{model}/model.safetensors.index.json"}).json()
    assert of_index["tensors"] == listing["tensors"]
    of_file = client.get("/v1/references", params={"location": f"{model}/a-2.safetensors"}).json()
    assert sorted(each["name"] for each in of_file["tensors"]) == ["bias", "w3"]
    (model / "model.safetensors.index.json").rename(model / "model.safetensors.index.fp16.json")
    of_variant = client.get("/v1/references", params={"location": f"{model}/model.safetensors.index.fp16.json"}).json()
    assert of_variant["tensors"] == listing["tensors"]


@pytest.mark.parametrize(
    "text", ['{"a": "\\ud800"}', '{"a": ' + "[" * 40 + "]" * 40 + "}", '{"a": ' + "9" * 5000 + "}"]
)
def test_a_config_that_no_response_can_contain_is_refused(client, model, text):
    (model / "config.json").write_text(text)
    response = client.get("/v1/references", params={"location": str(model)})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_reference"), response.text
    assert "config.json" in response.json()["detail"]


def test_the_error_of_a_server_is_no_config(client, model):
    (model / "config.json").write_text('{"error": "Entry not found"}')
    problem = client.get("/v1/references", params={"location": str(model)}).json()
    assert (problem["status"], problem["code"]) == (422, "invalid_reference")
    assert "it is a server's error instead of the file: 'Entry not found'" in problem["detail"]


def test_memory_for_a_config_is_reserved(client, app, model):
    capacity, reserved = app.state.masksmith.capacities.memory, []
    plain = capacity.acquire

    async def acquire(key, amount):
        reserved.append(amount)
        await plain(key, amount)

    capacity.acquire = acquire
    text = (model / "config.json").read_text()
    assert client.get("/v1/references", params={"location": str(model)}).status_code == 200
    assert 26 * len(text) in reserved


@pytest.mark.parametrize("is_upload", [False, True])
def test_memory_for_a_header_is_reserved_before_it_is_read(client, app, root, put, monkeypatch, is_upload):
    file = root / "large.safetensors"
    save_file({"w": WEIGHT}, file, {"text": "a" * 2**15})
    digest = put(file.read_bytes())
    capacity, steps, header_memory = app.state.masksmith.capacities.memory, [], cost("header") * 2**15

    async def acquire(key, amount):
        steps.append(("reserve", amount))
        if amount > header_memory:
            raise RequestError(Code.OVERLOADED, "no memory is left", retry_after_s=1)

    def read(plain):
        def record(self, name, start, stop, *args, **options):
            steps.append(("read", stop))
            return plain(self, name, start, stop, *args, **options)

        return record

    monkeypatch.setattr("masksmith_service.references.models.SMALL_HEADER_BYTES", 2**12)
    monkeypatch.setattr("masksmith_service.jobs.upload_headers.SMALL_HEADER_BYTES", 2**12)
    monkeypatch.setattr(capacity, "acquire", acquire)
    monkeypatch.setattr(capacity, "release", lambda *_: None)
    monkeypatch.setattr(DirectoryRoot, "read", read(DirectoryRoot.read))
    monkeypatch.setattr(BlobStore, "get_range", read(BlobStore.get_range))
    named = {"digest": digest} if is_upload else {"reference": str(file)}
    response = client.post("/v1/jobs", json={"pattern": "2:4", "tensors": [{"name": "w", "key": "w"} | named]})
    assert (response.status_code, response.json()["code"]) == (503, "overloaded")
    assert steps[-1][0] == "reserve"
    assert steps[-1][1] > header_memory
    assert all(stop < 2**10 for step, stop in steps if step == "read")


def test_a_name_that_is_too_long_names_no_file(client, root):
    response = client.get("/v1/references", params={"location": f"{root}/{'a' * 300}/model.safetensors"})
    assert (response.status_code, response.json()["code"]) == (404, "reference_not_found")


def test_a_job_reads_headers_and_notes_what_identifies_the_file(client, model, records):
    response = post(client, tensor(model / "a-1.safetensors"), tensor(model / "a-2.safetensors", "w3"))
    assert response.status_code == 202, response.text
    planned = records.read(response.json()["id"]).plan.tensors
    for each, file in zip(planned, ("a-1.safetensors", "a-2.safetensors"), strict=True):
        status = os.stat(model / file)
        assert each.source.location == str(model / file)
        assert each.source.version == f"{status.st_size}-{status.st_mtime_ns}"
        assert each.digest == ""
    assert records.read(response.json()["id"]).plan.uploads == []


def test_an_upload_is_compared_with_masks_in_a_root(client, root, save, records):
    mask = np.eye(8, dtype=bool)
    (root / "masks.safetensors").write_bytes(
        file_header({"w": MaskInfo(shape=[8, 8], pattern="2:4")}) + pack(mask).tobytes()
    )
    options = {"pattern": "2:4", "previous": str(root / "masks.safetensors")}
    response = client.post("/v1/masks", params=options, content=save({"w": WEIGHT}))
    assert response.status_code == 202, response.text
    [tensor] = records.read(response.json()["id"]).plan.tensors
    [part] = tensor.previous
    assert (part.source.location, part.blob) == (options["previous"], "")
    assert (root / "masks.safetensors").read_bytes()[part.start :] == pack(mask).tobytes()


@pytest.mark.parametrize(
    ("reference", "status", "code", "words"),
    [
        ("{root}/nothing.safetensors", 404, "reference_not_found", ["there is no", "nothing.safetensors"]),
        ("/elsewhere/a.safetensors", 404, "root_not_found", ["is in no root", "that you may read: {root}"]),
        ("s3://elsewhere/a.safetensors", 404, "root_not_found", ["is in no root"]),
        ("{root}/../a.safetensors", 422, "invalid_reference", ["its part '..'"]),
        ("a.safetensors", 422, "invalid_reference", ["neither an absolute path"]),
        ("s3://key:secret@b/a.safetensors", 422, "invalid_reference", ["credentials"]),
        ("{root}/model", 422, "invalid_reference", ["it is not a file"]),
        ("{root}/link.safetensors", 422, "invalid_reference", ["leads outside the root"]),
        ("{root}/pickle.safetensors", 400, "invalid_safetensors", ["pickle.safetensors"]),
        ("{root}/cut.safetensors", 400, "invalid_safetensors", ["cut.safetensors", "truncated"]),
        ("{root}/empty.safetensors", 400, "invalid_safetensors", ["empty.safetensors"]),
        ("{root}/dtype.safetensors", 400, "unknown_dtype", ["dtype.safetensors", "'w1' has unknown dtype 'F8'"]),
        ("{root}/long.safetensors", 413, "header_too_large", ["long.safetensors", "max_header_bytes is"]),
    ],
)  # fmt: skip
def test_an_unreadable_reference_is_rejected_at_submission(
    client, model, root, reference, status, code, words, records, tmp_path
):
    whole = (model / "a-1.safetensors").read_bytes()
    (tmp_path / "outside.safetensors").write_bytes(whole)
    (root / "link.safetensors").symlink_to(tmp_path / "outside.safetensors")
    (root / "pickle.safetensors").write_bytes(b"\x80\x04\x95" + bytes(100))
    (root / "cut.safetensors").write_bytes(whole[:-1])
    (root / "empty.safetensors").write_bytes(b"")
    (root / "dtype.safetensors").write_bytes(whole.replace(b'"F32"', b'"F8" '))
    (root / "long.safetensors").write_bytes(struct.pack("<Q", 17 * 2**20) + b"{")
    response = post(client, tensor(reference.format(root=root)))
    problem = response.json()
    assert (response.status_code, problem["code"]) == (status, code), problem
    for word in words:
        assert word.format(root=root) in problem["detail"]
    assert "secret" not in problem["detail"]
    assert records.live_count() == 0


@pytest.mark.parametrize("members", [{}, {"digest": "0" * 64}])
def test_a_tensor_is_in_one_file(client, model, members):
    given = tensor(model / "a-1.safetensors", **members)
    if not members:
        del given["reference"]
    problem = post(client, given).json()
    assert (problem["status"], problem["code"]) == (422, "invalid_document")
    assert "exactly one of digest and reference" in json.dumps(problem["errors"])


def test_a_missing_tensor_names_the_file(client, model):
    problem = post(client, tensor(model / "a-1.safetensors", "w9")).json()
    assert (problem["status"], problem["code"]) == (422, "unknown_tensor")
    assert "a-1.safetensors' has no tensor 'w9'" in problem["detail"]


def test_only_keys_with_the_right_may_read(app, records, model):
    keys = Keys(records.redis)
    tokens = {
        name: keys.create(name, role)[1] for name, role in (("ann", Role.USER), ("eve", Role.USER), ("ops", Role.ADMIN))
    }
    with TestClient(app) as client:
        for name, token in tokens.items():
            headers = {"Authorization": f"Bearer {token}"}
            responses = [
                post(client, tensor(model / "a-1.safetensors"), headers=headers),
                client.get("/v1/references", params={"location": str(model)}, headers=headers),
            ]
            for response in responses:
                if name == "eve":
                    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
                    assert "key 'eve' may not read the root" in response.json()["detail"]
                else:
                    assert response.is_success, response.text
        # A reference in no root names the roots that the key may read, and no others.
        eve = {"Authorization": f"Bearer {tokens['eve']}"}
        problem = post(client, tensor("/elsewhere/a.safetensors"), headers=eve).json()
        assert "that you may read: none" in problem["detail"]


def finish(records, settings, job):
    runner = ShardRunner(records, BlobStore(settings.store_location), roots=Roots(settings.roots))
    assert set(run_all(runner, job)) == {"completed"}


def test_pruned_weights_are_read_from_the_root(client, records, settings, model):
    job = post(client, tensor(model / "a-1.safetensors"), tensor(model / "a-2.safetensors", "w3")).json()["id"]
    finish(records, settings, job)
    response = client.get(f"/v1/jobs/{job}/pruned")
    assert response.status_code == 200, response.text
    # The larger two of every four ascending values.
    expected = WEIGHT + 2
    expected[:, [0, 1, 4, 5]] = 0
    pruned = load(response.content)
    assert {name: array.tolist() for name, array in pruned.items()} == {
        "w1": expected.tolist(), "w3": expected.tolist()
    }  # fmt: skip
    (model / "a-2.safetensors").unlink()
    problem = client.get(f"/v1/jobs/{job}/pruned").json()
    assert (problem["status"], problem["code"]) == (409, "reference_changed")
    assert "a-2.safetensors' has changed since the job was submitted: it no longer exists" in problem["detail"]
    save_file({"w3": WEIGHT, "more": WEIGHT}, model / "a-2.safetensors")
    assert client.get(f"/v1/jobs/{job}/pruned").json()["code"] == "reference_changed"


def test_pruned_weights_require_the_right_to_read_the_root(client, records, settings, model, root):
    job = post(client, tensor(model / "a-1.safetensors")).json()["id"]
    finish(records, settings, job)
    info, token = Keys(records.redis).create("eve", Role.USER)
    records.redis.hset(f"masksmith:job:{job}", "owner", info.id)
    with TestClient(create_app(settings)) as eve:
        problem = eve.get(f"/v1/jobs/{job}/pruned", headers={"Authorization": f"Bearer {token}"}).json()
    assert (problem["status"], problem["code"]) == (403, "forbidden")
    assert "may not read the root" in problem["detail"]


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ("[]", "no 'weight_map'"),
        ("{", "it is not JSON; download it again"),
        ("version https://git-lfs.github.com/spec/v1", "it is not JSON: it is a Git LFS pointer"),
        ('{"weight_map": {"w1": "../a-1.safetensors"}}', "is not a .safetensors file of the same directory"),
        ('{"weight_map": {"w1": "a-1.bin"}}', "is not a .safetensors file of the same directory"),
        ('{"weight_map": {"w9": "a-1.safetensors"}}', "which does not contain it"),
    ],
)
def test_an_index_that_contradicts_its_files_is_refused(client, model, index, reason):
    (model / "model.safetensors.index.json").write_text(index)
    problem = client.get("/v1/references", params={"location": str(model)}).json()
    assert (problem["status"], problem["code"]) == (422, "invalid_reference")
    assert reason in problem["detail"]


def test_tensors_that_the_index_does_not_list_count_for_the_maximum(client, model):
    files = {"a-1.safetensors": ["w1", "w2"], "a-2.safetensors": ["w3", "bias"]}
    for unlisted, status in ((8, 200), (9, 413)):
        for file, names in files.items():
            more = [f"{file}.{number}" for number in range(unlisted)]
            save_file(dict.fromkeys([*names, *more], WEIGHT), model / file)
        response = client.get("/v1/references", params={"location": str(model)})
        assert response.status_code == status, response.text
    problem = response.json()
    assert (problem["code"], problem["limit"]) == ("too_many_tensors", 20)
    assert f"the model {str(model)!r} has 22 tensors, max_tensors is 20" in problem["detail"]
    output = {"location": f"{model.parent}/out", "model": str(model)}
    problem = post(client, tensor(model / "a-1.safetensors"), output=output).json()
    assert problem["code"] == "too_many_tensors"


def test_a_directory_without_one_model_is_refused(client, root, model):
    (root / "texts").mkdir()
    (root / "texts" / "a.txt").touch()
    (root / "pickles").mkdir()
    (root / "pickles" / "pytorch_model.bin").touch()
    for folder, code, reason in (
        ("texts", "invalid_reference", "contains no .safetensors file of weights; it contains a.txt: name"),
        ("pickles", "invalid_reference", "but pytorch_model.bin: pickles, which can run code when they are loaded"),
        ("pickles/pytorch_model.bin", "invalid_reference", "it is neither a .safetensors file nor"),
        ("none", "reference_not_found", "there is no"),
    ):
        problem = client.get("/v1/references", params={"location": f"{root}/{folder}"}).json()
        assert problem["code"] == code
        assert reason in problem["detail"]
    (model / "model.safetensors.index.json").unlink()
    problem = client.get("/v1/references", params={"location": str(model)}).json()
    assert "2 candidates (a-1.safetensors, a-2.safetensors)" in problem["detail"]


def test_a_file_that_loaders_read_before_the_index_is_refused(client, model):
    save_file({"w1": np.ones((8, 8), np.float32)}, model / "model.safetensors")
    problem = client.get("/v1/references", params={"location": str(model)}).json()
    assert problem["code"] == "invalid_reference"
    assert "contains model.safetensors and model.safetensors.index.json, which does not list it" in problem["detail"]
    index = f"{model}/model.safetensors.index.json"
    assert client.get("/v1/references", params={"location": index}).status_code == 200


def test_a_duplicate_of_another_shape_is_refused(client, model):
    weight_map = json.loads((model / "model.safetensors.index.json").read_text())["weight_map"]
    name, file = next(iter(weight_map.items()))
    other = next(each for each in weight_map.values() if each != file)
    save_file(load_file(model / other) | {name: np.ones((4, 4), np.float32)}, model / other)
    problem = client.get("/v1/references", params={"location": str(model)}).json()
    assert problem["code"] == "invalid_reference"
    assert f"{other} contains '{name}' as F32 [4, 4], and {file}, which the index names for it" in problem["detail"]


@pytest.mark.parametrize(
    ("options", "kind"),
    [({"update": "reconstruct"}, "gram"), ({"update": "admm"}, "gram"), ({"scores": "sparsegpt"}, "statistic")],
)
def test_gram_matrices_have_any_size(client, root, model, monkeypatch, options, kind):
    """Whether one fits is known where it is read."""
    monkeypatch.setattr("masksmith_service.jobs.statistics.WHOLE_BYTES", 8 * 8 * 8 - 1)
    save_file({"w1/gram": np.eye(8), "w1/activations": np.ones((64, 8))}, root / "grams.safetensors")
    gram = {"kind": "gram", "reference": f"{root}/grams.safetensors", "key": "w1/gram"}
    response = post(client, tensor(model / "a-1.safetensors", **{kind: gram}), **options)
    assert response.status_code == 202, response.text


def test_activations_of_any_size_are_refused(client, root, model, monkeypatch):
    monkeypatch.setattr("masksmith_service.jobs.statistics.WHOLE_BYTES", 8 * 8 * 8 - 1)
    save_file({"w1/activations": np.ones((64, 8))}, root / "inputs.safetensors")
    inputs = {"kind": "activations", "reference": f"{root}/inputs.safetensors", "key": "w1/activations"}
    problem = post(client, tensor(model / "a-1.safetensors", statistic=inputs), scores="sipp").json()
    assert problem["code"] == "invalid_calibration"
    assert "more than the 511 bytes that go to one worker; send fewer samples" in problem["detail"]
