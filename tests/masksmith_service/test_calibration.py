"""Scores that need calibration data: located by headers, or rejected before anything is queued."""

import numpy as np
import pytest

from masksmith_service.errors import RequestError
from masksmith_service.jobs.statistics import check_calibrated_names
from masksmith_wire.headers import Header, TensorEntry

WEIGHT = np.ones((8, 16), np.float32)
NORMS = np.ones(16)


@pytest.fixture
def weights(save):
    return save({"a": WEIGHT, "b": WEIGHT, "bias": WEIGHT[0]})


def masks(client, data, scores="wanda", **params):
    return client.post("/v1/masks", params={"pattern": "2:4", "scores": scores} | params, content=data)


def job(client, digest, scores="wanda", **changes):
    tensor = {"name": "a", "digest": digest, "key": "a"} | changes.pop("tensor", {})
    document = {"pattern": "2:4", "scores": scores, "tensors": [tensor]} | changes
    return client.post("/v1/jobs", json=document)


def planned(app, answer):
    assert answer.status_code == 202, answer.text
    return app.state.masksmith.records.read(answer.json()["id"]).plan.tensors


def test_a_calibration_file_is_matched_by_the_names_of_the_weights(app, client, put, save, weights):
    digest = put(save({"a/norms": NORMS, "b/norms": NORMS, "b/gram": np.eye(16)}))
    answer = masks(client, weights, calibration=digest)
    assert [(tensor.name, tensor.statistic.name) for tensor in planned(app, answer)] == [("a", "norms"), ("b", "norms")]
    assert answer.json()["scores"] == "wanda"


def test_weights_that_are_not_calibrated_are_skipped_unless_they_are_named(client, put, save, weights, check_problem):
    digest = put(save({"a/norms": NORMS}))
    answer = masks(client, weights, calibration=digest).json()
    assert [tensor["name"] for tensor in answer["tensors"]] == ["a"]
    assert {"name": "b", "reason": "not calibrated: the calibration has no 'b/norms'"} in answer["skipped"]
    assert [skipped["name"] for skipped in answer["skipped"]] == ["b", "bias"]
    named = masks(client, weights, calibration=digest, layers="b")
    check_problem(named, 422, "invalid_calibration", "'b'", "'b/norms'")


def test_a_document_may_say_where_each_statistic_is(app, client, put, save, weights):
    where = {"kind": "gram", "digest": put(save({"x": np.eye(16)})), "key": "x"}
    [tensor] = planned(app, job(client, put(weights), "sparsegpt", tensor={"statistic": where}))
    assert (tensor.statistic.name, tensor.statistic.shape) == ("gram", [16, 16])


def test_the_diagonal_of_an_inverse_is_preferred_to_a_gram_matrix(app, client, put, save, weights):
    digest = put(save({"a/gram": np.eye(16), "a/inverse_diagonal": NORMS}))
    [tensor] = planned(app, job(client, put(weights), "sparsegpt", calibration=digest))
    assert tensor.statistic.name == "inverse_diagonal"
    [damped] = planned(app, job(client, put(weights), "sparsegpt damping=0.5", calibration=digest))
    assert damped.statistic.name == "gram"


def test_given_scores_may_lie_beside_the_weights(app, client, put, save, weights):
    [tensor] = planned(app, job(client, put(weights), "given", calibration=put(save({"a": WEIGHT}))))
    assert (tensor.statistic.name, tensor.statistic.shape) == ("scores", [8, 16])


@pytest.mark.parametrize(
    ("scores", "held", "words"),
    [
        ("wanda", {"a/norms": NORMS[:5]}, ["'a'", "norms of shape [5]"]),
        ("sparsegpt", {"a/gram": np.eye(8)}, ["'a'", "gram of shape [8, 8]", "[16, 16]"]),
        ("taylor", {"a/gradient": WEIGHT.T}, ["'a'", "gradient of shape [16, 8]"]),
        ("sipp", {"a/activations": WEIGHT[:, :4]}, ["activations of shape [8, 4]"]),
        ("given", {"a": WEIGHT.T}, ["scores of shape [16, 8]"]),
        ("wanda", {"a/norms": np.ones(16, np.int32)}, ["dtype I32"]),
        ("wanda", {"a/gram": np.eye(16)}, ["not calibrated", "'a/norms'"]),
        ("magnitude", {"a/norms": NORMS}, ["'magnitude'", "omit the calibration"]),
        ("ria power=0", {"a/norms": NORMS}, ["omit the calibration"]),
    ],
)
def test_a_calibration_that_does_not_fit(client, put, save, weights, check_problem, scores, held, words):
    check_problem(job(client, put(weights), scores, calibration=put(save(held))), 422, "invalid_calibration", *words)


def test_a_calibration_for_a_layer_that_does_not_exist(client, put, save, weights, check_problem):
    digest = put(save({"a/norms": NORMS, "elsewhere.weight/norms": NORMS}))
    problem = check_problem(masks(client, weights, calibration=digest), 422, "invalid_calibration", "elsewhere.weight")
    assert problem["tensor"] == "elsewhere.weight"


def test_scores_that_need_a_calibration_and_have_none(client, put, weights, check_problem):
    check_problem(job(client, put(weights)), 422, "invalid_calibration", "'a'", "wanda", "norms")
    check_problem(masks(client, weights), 422, "invalid_calibration", "'a'", "norms")


def test_a_statistic_of_another_kind_or_of_no_file(client, put, save, weights, check_problem):
    digest = put(save({"x": NORMS}))
    wrong = {"kind": "norms", "digest": digest, "key": "x"}
    check_problem(
        job(client, put(weights), "taylor", tensor={"statistic": wrong}), 422, "invalid_calibration", "not from norms"
    )
    absent = {"kind": "norms", "digest": digest, "key": "y"}
    check_problem(job(client, put(weights), tensor={"statistic": absent}), 422, "invalid_calibration", "'y'")
    gone = {"kind": "norms", "digest": "0" * 64, "key": "x"}
    check_problem(job(client, put(weights), tensor={"statistic": gone}), 409, "upload_not_found", "0" * 64)


def test_a_number_that_the_library_refuses_is_refused_at_once(client, put, weights, check_problem):
    words = ["'magnitude power=20'", "power=20 is not a number from 0.1 to 10"]
    check_problem(job(client, put(weights), "magnitude power=20"), 422, "invalid_document", *words)
    check_problem(masks(client, weights, scores="magnitude power=20"), 422, "invalid_document", *words)
    admm = job(client, put(weights), "wanda", update="admm penalty=1e9")
    check_problem(admm, 422, "invalid_document", "penalty=1000000000 is not a number from 1e-06 to 1e+06")


def test_names_of_a_calibration_are_not_searched_in_a_list():
    """With 20,000 names in each file, a search for each of them took seconds."""

    class Unsearchable(list[str]):
        def __contains__(self, name: object) -> bool:
            raise AssertionError("a search in a list takes time for each of its names")

    entry = TensorEntry("x", "F32", (16,), 0, 64)
    check_calibrated_names(Header({"a/norms": entry, "b/gram": entry}), Unsearchable(["a", "b"]))
    with pytest.raises(RequestError, match="a layer 'b'"):
        check_calibrated_names(Header({"a/norms": entry, "b/gram": entry}), Unsearchable(["a"]))
