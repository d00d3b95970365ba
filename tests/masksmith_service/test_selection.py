"""What the start page shows before an upload: the tensors that the job would mask, from headers alone."""

import json
import struct

import numpy as np
import pytest

WEIGHT = np.arange(64, dtype=np.float32).reshape(8, 8)
MODEL = {
    "model.embed_tokens.weight": WEIGHT,
    "model.layers.0.mlp.up_proj.weight": WEIGHT,
    "model.layers.0.self_attn.q_proj.weight": WEIGHT,
    "model.layers.0.input_layernorm.weight": WEIGHT[0],
    "lm_head.weight": WEIGHT,
}
UP, QUERY = "model.layers.0.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.weight"
NORMS = {f"{UP}/norms": WEIGHT[1]}


def header_of(data):
    (length,) = struct.unpack("<Q", data[:8])
    return data[8 : 8 + length].decode()


@pytest.fixture
def select(client, save):
    """Ask which tensors are masked, without an upload."""

    def select(options, tensors=MODEL, calibration=None):
        document = {"headers": [header_of(save(tensors))]}
        if calibration is not None:
            document["calibration"] = header_of(save(calibration))
        return client.post("/v1/selection", params=options, json=document)

    return select


def test_embeddings_heads_and_norms_are_not_counted(select, on_disk):
    selected = select({"pattern": "2:4"}).json()
    assert (selected["masked"], selected["entries"]) == ([UP, QUERY], 128)
    assert {skip["name"]: skip["reason"] for skip in selected["skipped"]}.keys() == MODEL.keys() - {UP, QUERY}
    assert on_disk.files() == []


@pytest.mark.parametrize(
    ("options", "calibration"),
    [
        ({"pattern": "2:4"}, None),
        ({"pattern": "2:4", "layers": ["*.mlp.*", "lm_head.weight"]}, None),
        ({"pattern": ["*q_proj*=4:8"]}, None),
        ({"pattern": "50%", "budget": "50%"}, None),
        ({"pattern": "2:4", "scores": "wanda"}, NORMS),
        # What the job is refused for.
        ({"pattern": "9:4"}, None),
        ({"pattern": "2:4", "layers": "*.other"}, None),
        ({"pattern": "3:16", "ragged": "error"}, None),
        ({"pattern": "2:4", "scores": "wanda"}, None),
        ({"pattern": "2:4", "scores": "wanda"}, {"other/norms": WEIGHT[0]}),
        ({"pattern": "50%", "budget": "0.01%"}, None),
    ],
)
def test_the_job_masks_what_was_selected(client, select, save, put, options, calibration):
    selection = select(options, calibration=calibration)
    if calibration is not None:
        options = options | {"calibration": put(save(calibration))}
    job = client.post("/v1/masks", params=options, content=save(MODEL))
    if job.is_success:
        assert selection.json()["masked"] == [report["name"] for report in job.json()["tensors"]]
        assert selection.json()["skipped"] == job.json()["skipped"]
    else:
        assert job.status_code == selection.status_code == 422
        members = [response.json() | {"instance": "", "request_id": ""} for response in (job, selection)]
        assert members[0] == members[1]


def test_two_layouts_of_one_tensor_are_refused(select, check_problem):
    response = select({"pattern": "2:4", "layout": [f"{UP}=out in", f"{UP}=in out"]})
    check_problem(response, 422, "invalid_layout", f"layout '{UP}=in out': there is another layout for the same tensor")


def test_headers_are_checked_as_those_of_uploads(client, select, save, check_problem):
    def post(*headers, **members):
        return client.post("/v1/selection?pattern=2:4", json={"headers": headers, **members})

    good = header_of(save({"a": WEIGHT}))
    check_problem(post(good, good), 422, "invalid_document", "two of the files have a tensor 'a'")
    check_problem(post(good.replace("F32", "F99")), 400, "unknown_dtype")
    check_problem(post("{}x"), 400, "invalid_safetensors")
    check_problem(post(good, calibration="no header"), 400, "invalid_safetensors")
    check_problem(post(), 422, "invalid_document")
    check_problem(post(""), 400, "invalid_safetensors")
    as_json = {"Content-Type": "application/json"}
    for document in ({"headers": ["\ud800"]}, {"headers": [good], "calibration": "\udfff"}):
        response = client.post("/v1/selection?pattern=2:4", content=json.dumps(document), headers=as_json)
        check_problem(response, 422, "invalid_document", "valid string")
    many = {f"t{number}": WEIGHT for number in range(6)}
    check_problem(select({"pattern": "2:4"}, many), 413, "too_many_tensors")
    check_problem(select({"pattern": "2:4", "also": "0" * 64}), 422, "invalid_document", "also does not go with")


def test_a_header_has_the_bound_of_an_upload(app, select, check_problem, client):
    app.state.masksmith.settings.max_header_bytes = 100
    check = select({"pattern": "2:4"})
    assert (check.status_code, check.json()["code"]) == (413, "header_too_large")
