"""Bounds on the files of a model in a root: on their number, their tensors, and the memory to read them."""

import json

from starlette.testclient import TestClient

from masksmith_service.references import models


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
