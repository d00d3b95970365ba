"""A directory or a bucket with a model, and a worker in this process."""

import json

import pytest
from safetensors.numpy import save_file
from support.buckets import BUCKET, Bucket
from support.output_jobs import FILES, WEIGHTS

from masksmith_state.blobs.store import BlobStore
from masksmith_state.roots.roots import Roots
from masksmith_state.roots.setting import RootSetting
from masksmith_worker.runner import ShardRunner


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
