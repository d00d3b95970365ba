"""Bounds on the files of a model in a root: on their number, their tensors, and the memory to read them."""

import json

import pytest
from starlette.testclient import TestClient

from masksmith_service.bounds.capacity import Capacity
from masksmith_service.bounds.table import cost
from masksmith_service.errors import RequestError
from masksmith_service.references import models
from masksmith_wire.errors import Code


def list_model(app, model):
    with TestClient(app) as client:
        return client.get("/v1/references", params={"location": model})


def test_an_index_of_too_many_tensors_is_refused_as_a_file_of_too_many_is(app, root, model):
    weight_map = {f"w{number}": "m-1.safetensors" for number in range(21)}
    root.write("model/model.safetensors.index.json", [json.dumps({"weight_map": weight_map}).encode()])
    response = list_model(app, model)
    assert (response.status_code, response.json()["code"], response.json()["limit"]) == (413, "too_many_tensors", 20)
    assert "model.safetensors.index.json' has 21 tensors, max_tensors is 20" in response.json()["detail"]


def test_an_index_of_too_many_files_is_refused(app, root, model, monkeypatch):
    monkeypatch.setattr(models, "MAX_FILES", 1)
    problem = list_model(app, model).json()
    assert (problem["status"], problem["code"]) == (422, "invalid_reference")
    assert "it lists 2 files, at most 1 are read" in problem["detail"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_memory_for_a_json_file_is_reserved_before_it_is_read(app, root, model, monkeypatch, name):
    needed, read_paths, read = cost("document") * root.stat(f"model/{name}").size, [], type(root).read

    async def acquire(self, key, amount):
        if amount == needed:
            raise RequestError(Code.OVERLOADED, "no memory is left", retry_after_s=1)

    def record(self, path, *arguments, **options):
        read_paths.append(path)
        return read(self, path, *arguments, **options)

    monkeypatch.setattr(Capacity, "acquire", acquire)
    monkeypatch.setattr(Capacity, "release", lambda *_: None)
    monkeypatch.setattr(type(root), "read", record)
    response = list_model(app, model)
    assert (response.status_code, response.json()["code"]) == (503, "overloaded")
    assert f"model/{name}" not in read_paths
