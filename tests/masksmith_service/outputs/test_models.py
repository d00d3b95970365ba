"""Jobs whose tensors the service selects, and those that are compared with earlier masks."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from starlette.testclient import TestClient
from support.output_jobs import FILES, MASKED, WEIGHTS, check_output, document, submit, work

import masksmith as ms
from masksmith_service.references.access import LocatedPath
from masksmith_wire.output_names import MASKS_NAME


def test_the_service_selects_the_tensors_of_a_model(app, runner, root, model, url, tmp_path):
    """As the page asks for: model, output and options in the query, no document."""
    query = {"model": model, "output": f"{url}/out", "pattern": "2:4", "name": "from the page"}
    with TestClient(app) as client:
        response = client.post("/v1/outputs", params=query)
        assert response.status_code == 202, response.text
        job = response.json()["id"]
        work(runner, job)
        view = client.get(f"/v1/jobs/{job}").json()
        check_output(root, tmp_path)
    assert (view["state"], view["name"]) == ("succeeded", "from the page")
    assert [each["name"] for each in view["skipped"]] == ["norm.weight"]


def test_a_tensor_that_the_index_forgets_is_a_tensor_of_the_model(app, runner, root, model, url):
    """`from_pretrained` loads all tensors of a file that the index names, so jobs mask the forgotten ones, too."""
    q_proj, k_proj = MASKED[:2]
    root.write("model/model.safetensors.index.json", [b'{"weight_map": {"%s": "m-1.safetensors"}}' % q_proj.encode()])
    named = document(model, f"{url}/named")
    named["tensors"] = named["tensors"][:2]
    with TestClient(app) as client:
        listing = client.get("/v1/references", params={"location": model}).json()
        for response in (
            client.post("/v1/outputs", params={"model": model, "output": f"{url}/out", "pattern": "2:4"}),
            client.post("/v1/jobs", json=named),
        ):
            assert response.json().get("skipped", []) == []
            job = response.json()["id"]
            work(runner, job)
            totals = client.get(f"/v1/jobs/{job}/output").json()["totals"]
            assert (totals["tensors"], totals["zeros"]) == (2, 0.5)
    assert {each["name"] for each in listing["tensors"]} == {q_proj, k_proj}


def test_layers_patterns_and_config_of_a_model_count(app, records, root, model, url):
    q_proj, k_proj = MASKED[:2]
    query = {"model": model, "output": f"{url}/out", "pattern": ["2:4", f"{k_proj}=1:4"], "layers": "*.0.*"}
    with TestClient(app) as client:
        plan = records.read(client.post("/v1/outputs", params=query).json()["id"]).plan
        assert [(each.name, each.pattern) for each in plan.tensors] == [(q_proj, "2:4"), (k_proj, "1:4")]
        root.write("model/config.json", [b'{"model_type": "gpt2"}'])
        named = {"model": model, "output": f"{url}/other", "pattern": "2:4", "layout": f"{q_proj}=in out"}
        plan = records.read(client.post("/v1/outputs", params=named).json()["id"]).plan
        assert {each.name: each.axes for each in plan.tensors}[q_proj] == "in out"


@pytest.mark.parametrize(
    ("more", "code", "reason"),
    [
        ({"model": "/elsewhere/m"}, "root_not_found", "is in no root"),
        ({"model": "{url}/nothing"}, "reference_not_found", "there is no"),
        ({"output": "{url}/model"}, "invalid_output", "overlaps with the model"),
        ({"pattern": "2:"}, "invalid_pattern", "2:"),
        ({"layers": "none"}, "unknown_tensor", "none"),
        ({"scores": "wanda"}, "invalid_calibration", "need a calibration"),
        ({"also": "0" * 64}, "invalid_document", "also"),
    ],
)
def test_a_model_or_output_that_cannot_be_is_named_at_once(app, records, root, model, url, more, code, reason):
    query = {"model": model, "output": f"{url}/out", "pattern": "2:4"} | {
        name: value.format(url=url) for name, value in more.items()
    }
    with TestClient(app) as client:
        problem = client.post("/v1/outputs", params=query).json()
    assert problem["code"] == code, problem
    assert reason in problem["detail"]
    assert root.list("out") == {}


@pytest.mark.parametrize(
    ("file", "content", "name"),
    [
        ("config.json", b'{"model_type": "llama", "model_type": "bert"}', "model_type"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "m-1.safetensors", "a": "m-2.safetensors"}}', "a"),
    ],
)
def test_a_member_that_is_given_twice_is_named(app, root, model, url, file, content, name):
    root.write(f"model/{file}", [content])
    with TestClient(app) as client:
        problem = client.post("/v1/outputs", params={"model": model, "output": f"{url}/out", "pattern": "2:4"}).json()
    assert (problem["status"], problem["code"]) == (422, "invalid_reference")
    assert file in problem["detail"]
    assert f"{name!r} is given twice" in problem["detail"]


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


@pytest.fixture
def calibration(root, url, tmp_path):
    """Norms and Gram matrices of all masked tensors, in the root."""
    rng, statistics = np.random.default_rng(8), {}
    for name in MASKED:
        inputs = rng.standard_normal((64, WEIGHTS[name].shape[1])) * np.linspace(0.2, 3, WEIGHTS[name].shape[1])
        statistics |= {f"{name}/norms": np.linalg.norm(inputs, axis=0), f"{name}/gram": inputs.T @ inputs}
    save_file(statistics, tmp_path / "statistics.safetensors")
    root.write("statistics.safetensors", [(tmp_path / "statistics.safetensors").read_bytes()])
    return f"{url}/statistics.safetensors", statistics


def test_a_calibration_is_read_from_a_root(app, runner, root, model, url, calibration, tmp_path):
    reference, statistics = calibration
    query = {"model": model, "output": f"{url}/out", "pattern": "2:4", "scores": "wanda", "update": "reconstruct"}
    with TestClient(app) as client:
        response = client.post("/v1/outputs", params=query | {"calibration": reference})
        assert response.status_code == 202, response.text
        work(runner, response.json()["id"])
        record = client.get(f"/v1/jobs/{response.json()['id']}/output").json()
    assert record["update"] == "reconstruct"
    for file, names in FILES.items():
        (tmp_path / file).write_bytes(root.get(f"out/{file}", 2**20))
        written = load_file(tmp_path / file)
        for name in set(names) & set(MASKED):
            mask = ms.solve(ms.wanda(WEIGHTS[name], statistics[f"{name}/norms"]), "2:4").mask
            update = ms.reconstruct(WEIGHTS[name], mask, statistics[f"{name}/gram"])
            np.testing.assert_allclose(written[name], update.weight, rtol=1e-5, atol=1e-7)
            assert ((written[name] != 0) <= mask).all()


@pytest.mark.parametrize(
    ("reference", "code", "reason"),
    [
        ("{url}/nowhere.safetensors", "reference_not_found", "nowhere.safetensors"),
        ("/elsewhere/s.safetensors", "root_not_found", "is in no root"),
        ("statistics.safetensors", "invalid_document", "calibration"),
        ("{url}/model/m-1.safetensors", "no_tensor_fits", "not calibrated"),
    ],
)
def test_a_calibration_that_cannot_be_read_is_named_at_once(app, records, root, model, url, reference, code, reason):
    query = {"model": model, "output": f"{url}/out", "pattern": "2:4", "scores": "wanda"}
    with TestClient(app) as client:
        problem = client.post("/v1/outputs", params=query | {"calibration": reference.format(url=url)}).json()
    assert problem["code"] == code, problem
    assert reason in str(problem)
    assert records.live_count() == 0
    assert root.list("out") == {}


def test_a_calibration_of_another_model_is_refused(app, root, model, url, tmp_path):
    save_file({"layers.9.w/norms": np.ones(32)}, tmp_path / "other.safetensors")
    root.write("other.safetensors", [(tmp_path / "other.safetensors").read_bytes()])
    query = {"model": model, "output": f"{url}/out", "pattern": "2:4", "scores": "wanda"}
    with TestClient(app) as client:
        problem = client.post("/v1/outputs", params=query | {"calibration": f"{url}/other.safetensors"}).json()
    assert problem["code"] == "invalid_calibration"
    assert "for a layer 'layers.9.w'" in problem["detail"]


def test_headers_of_a_model_are_read_once(app, model, url, monkeypatch):
    reads = []
    read_header = LocatedPath.read_header
    monkeypatch.setattr(
        LocatedPath, "read_header", lambda self, *bounds: reads.append(self.location) or read_header(self, *bounds)
    )
    with TestClient(app) as client:
        query = {"model": model, "output": f"{url}/a", "pattern": "2:4"}
        assert client.post("/v1/outputs", params=query).status_code == 202
        assert sorted(reads) == sorted(f"{model}/{file}" for file in FILES)
        reads.clear()
        assert client.post("/v1/jobs", json=document(model, f"{url}/b")).status_code == 202
        assert sorted(reads) == sorted(f"{model}/{file}" for file in FILES)


def test_of_a_tensor_in_two_files_the_index_decides(app, runner, root, model, url, tmp_path):
    """As in `prune --local`: a duplicate gets the values, and the mask, of the tensor that the index names."""
    file, names = "m-1.safetensors", FILES["m-1.safetensors"]
    other = {name: WEIGHTS[name] + 1 for name in ("norm.weight", FILES["m-2.safetensors"][0])}
    save_file({name: WEIGHTS[name] for name in names} | other, tmp_path / file, {"format": "pt"})
    root.write(f"model/{file}", [(tmp_path / file).read_bytes()])
    with TestClient(app) as client:
        work(runner, submit(client, model, f"{url}/out"))
    (tmp_path / file).write_bytes(root.get(f"out/{file}", 2**20))
    written = load_file(tmp_path / file)
    assert set(written) == {*names, *other}
    for name, values in written.items():
        mask = ms.solve(ms.magnitude(WEIGHTS[name]), "2:4").mask if name in MASKED else True
        np.testing.assert_array_equal(values, WEIGHTS[name] * mask)


def test_a_tensor_in_two_files_and_not_in_the_index_is_refused(app, root, model, url, tmp_path):
    for file, names in FILES.items():
        tensors = {name: WEIGHTS[name] for name in names} | {"extra.weight": np.ones(4, np.float32)}
        save_file(tensors, tmp_path / file)
        root.write(f"model/{file}", [(tmp_path / file).read_bytes()])
    with TestClient(app) as client:
        problem = client.post("/v1/jobs", json=document(model, f"{url}/out")).json()
    assert problem["code"] == "invalid_reference"
    assert "'extra.weight' is in m-1.safetensors and in m-2.safetensors, and the index" in problem["detail"]
