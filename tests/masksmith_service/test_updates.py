"""Jobs that update weights: planned by headers, or refused by name before anything is queued."""

import numpy as np
import pytest

WEIGHT = np.ones((8, 16), np.float32)
GRAM = np.eye(16)


@pytest.fixture
def weights(save):
    return save({"a": WEIGHT, "b": WEIGHT, "bias": WEIGHT[0]})


def masks(client, data, update="reconstruct", **params):
    return client.post("/v1/masks", params={"pattern": "2:4", "update": update} | params, content=data)


def job(client, digest, update="reconstruct", **changes):
    tensor = {"name": "a", "digest": digest, "key": "a"} | changes.pop("tensor", {})
    document = {"pattern": "2:4", "update": update, "tensors": [tensor]} | changes
    return client.post("/v1/jobs", json=document)


def planned(app, answer):
    assert answer.status_code == 202, answer.text
    return app.state.masksmith.records.read(answer.json()["id"]).plan.tensors


def test_the_calibration_gives_each_weight_its_gram_matrix(app, client, put, save, weights):
    digest = put(save({"a/gram": GRAM, "b/gram": GRAM, "a/norms": GRAM[0]}))
    answer = masks(client, weights, calibration=digest)
    assert [(tensor.name, tensor.statistic, tensor.gram.shape) for tensor in planned(app, answer)] == [
        ("a", None, [16, 16]),
        ("b", None, [16, 16]),
    ]
    assert answer.json()["update"] == "reconstruct"


def test_scores_and_update_may_share_a_calibration(app, client, put, save, weights):
    digest = put(save({"a/gram": GRAM, "a/norms": GRAM[0], "b/norms": GRAM[0]}))
    answer = masks(client, weights, "admm penalty=0.10", scores="wanda", calibration=digest)
    [tensor] = planned(app, answer)
    assert (tensor.statistic.name, tensor.gram.name) == ("norms", "gram")
    skipped = {skip["name"]: skip["reason"] for skip in answer.json()["skipped"]}
    assert skipped["b"] == "not calibrated: the calibration has no 'b/gram'"
    assert answer.json()["update"].startswith("admm penalty=0.1")


def test_a_document_may_say_where_each_gram_matrix_is(app, client, put, save, weights):
    where = {"kind": "gram", "digest": put(save({"x": GRAM})), "key": "x"}
    [tensor] = planned(app, job(client, put(weights), tensor={"gram": where}))
    assert (tensor.gram.name, tensor.gram.digest) == ("gram", where["digest"])


def test_the_gram_matrix_may_be_named_where_the_calibration_has_the_statistic_only(app, client, put, save, weights):
    where = {"kind": "gram", "digest": put(save({"x": GRAM})), "key": "x"}
    calibration = put(save({"a/norms": GRAM[0]}))
    [tensor] = planned(app, job(client, put(weights), scores="wanda", calibration=calibration, tensor={"gram": where}))
    assert (tensor.statistic.digest, tensor.gram.digest) == (calibration, where["digest"])


@pytest.mark.parametrize(
    ("changes", "code", "named"),
    [
        ({}, "invalid_calibration", "reconstruct needs a calibration: gram"),
        ({"update": "adam"}, "invalid_document", "adam"),
        ({"tensor": {"gram": {"kind": "norms", "key": "n"}}}, "invalid_calibration", "needs its gram, not norms"),
        ({"tensor": {"gram": {"kind": "gram", "key": "n"}}}, "invalid_calibration", "[16]"),
        ({"tensor": {"gram": {"kind": "gram", "key": "z"}}}, "invalid_calibration", "has no tensor 'z'"),
        ({"update": None, "tensor": {"gram": {"kind": "gram", "key": "g"}}}, "invalid_calibration", "goes with update"),
        ({"scores": "given", "tensor": {"gram": {"kind": "gram", "key": "g"}}}, "invalid_calibration", "holds scores"),
        ({"tensor": {"key": "i", "gram": {"kind": "gram", "key": "g"}}}, "tensor_does_not_fit", "dtype I8"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(client, put, save, check_problem, changes, code, named):
    digest = put(save({"a": WEIGHT, "g": GRAM, "n": GRAM[0], "i": WEIGHT.astype(np.int8)}))
    changes = {key: dict(value) if isinstance(value, dict) else value for key, value in changes.items()}
    if "tensor" in changes and "gram" in changes["tensor"]:
        changes["tensor"]["gram"] = {"digest": digest} | changes["tensor"]["gram"]
    check_problem(job(client, digest, **changes), 422, code, named)


def test_weights_of_a_job_without_an_update_are_not_found(app, client, weights, check_problem):
    answer = client.post("/v1/masks", params={"pattern": "2:4"}, content=weights).json()
    check_problem(client.get(f"/v1/jobs/{answer['id']}/weights"), 409, "job_not_finished")
    client.post(f"/v1/jobs/{answer['id']}/cancel")
    check_problem(client.get(f"/v1/jobs/{answer['id']}/weights"), 404, "result_not_found", "updates no weights")
