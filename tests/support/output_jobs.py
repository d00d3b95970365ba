"""A small model, jobs that write a pruned copy of it, and what the copy must be."""

import json

import numpy as np
from safetensors.numpy import load_file

import masksmith as ms
from masksmith_wire.output_names import MASKS_NAME, RECORD_NAME
from support.leases import run_shard

RNG = np.random.default_rng(7)
WEIGHTS = {
    f"model.layers.{layer}.{part}.weight": RNG.standard_normal((32, 48)).astype(np.float32)
    for layer in range(2)
    for part in ("q_proj", "k_proj")
} | {"norm.weight": np.ones(48, np.float32)}
MASKED = [name for name in WEIGHTS if name != "norm.weight"]
FILES = {"m-1.safetensors": MASKED[:2], "m-2.safetensors": [*MASKED[2:], "norm.weight"]}


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
