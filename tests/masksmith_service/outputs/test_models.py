"""Jobs whose tensors the service selects, and those that are compared with earlier masks."""

import pytest
from starlette.testclient import TestClient
from support.output_jobs import MASKED, WEIGHTS, check_output, document, submit, work

import masksmith as ms
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
        ({"output": "{url}/model"}, "invalid_output", "contain each other"),
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
