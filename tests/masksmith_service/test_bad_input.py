import json

import numpy as np
import pytest

from masksmith_service.middleware.json_bodies import depth

EYE = np.eye(8, dtype=np.float32)


def masks(client, data, **params):
    return client.post("/v1/masks", params={"pattern": "2:4"} | params, content=data)


def job(client, digest, **changes):
    document = {"pattern": "2:4", "tensors": [{"name": "w", "digest": digest, "key": "w"}]} | changes
    return client.post("/v1/jobs", json=document)


@pytest.mark.parametrize("pattern", ["5:4", "0:4", "2:65", "abc", "", "2:4 x 1:2", "transposable 3:4 x 1:2", "٢:٤"])
@pytest.mark.parametrize("how", ["file", "document"])
def test_an_invalid_pattern_is_rejected(client, put, save, check_problem, pattern, how):
    data = save({"w": EYE})
    response = masks(client, data, pattern=pattern) if how == "file" else job(client, put(data), pattern=pattern)
    problem = check_problem(response, 422, "invalid_pattern")
    assert problem["pattern"] == pattern
    assert pattern in problem["detail"] or pattern in problem["detail"].encode().decode("unicode_escape")


@pytest.mark.parametrize(
    ("parameter", "value", "code"),
    [
        ("solver", "best", "unknown_solver"),
        ("scores", "taken", "invalid_document"),
        ("axis", "sideways", "invalid_document"),
        ("ragged", "whatever", "invalid_document"),
        ("time_limit_s", "-3", "invalid_document"),
        ("time_limit_s", "nan", "invalid_document"),
        ("time_limit_s", "soon", "invalid_document"),
        ("speed", "warp9", "invalid_document"),
    ],
)
def test_a_bad_option_is_named_with_its_value(client, put, save, check_problem, parameter, value, code):
    data = save({"w": EYE})
    check_problem(masks(client, data, **{parameter: value}), 422, code, f"query.{parameter}", value)
    check_problem(job(client, put(data), **{parameter: value}), 422, code, f"body.{parameter}", value)


def test_a_pattern_must_be_given(client, save, check_problem):
    check_problem(client.post("/v1/masks", content=save({"w": EYE})), 422, "invalid_document", "query.pattern")


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (np.zeros((0, 8), np.float32), "no entries"),
        (np.zeros(8, np.float32), "1 dimension"),
        (np.zeros((1, 2, 2, 2, 3), np.float32), "5 dimension"),
        (np.zeros((4, 4), np.int32), "dtype I32 is not supported"),
        (np.zeros((4, 4), bool), "dtype BOOL is not supported"),
    ],
    ids=["empty", "1-D", "5-D", "int32", "bool"],
)
def test_a_tensor_that_cannot_be_masked(client, put, save, check_problem, tensor, reason):
    alone, beside = save({"bad": tensor}), save({"bad": tensor, "w": EYE})
    problem = check_problem(masks(client, alone), 422, "no_tensor_fits", "'2:4'")
    assert problem["skipped"][0]["name"] == "bad"
    named = check_problem(masks(client, beside, layers="bad"), 422, "tensor_does_not_fit", "'bad'", reason)
    assert named["tensor"] == "bad"
    inputs = [{"name": "the bad", "digest": put(beside), "key": "bad"}]
    check_problem(job(client, "", tensors=inputs), 422, "tensor_does_not_fit", "'the bad'", reason)
    fine = masks(client, beside)
    assert fine.status_code == 202
    assert [tensor["name"] for tensor in fine.json()["tensors"]] == ["w"]
    assert [skip["name"] for skip in fine.json()["skipped"]] == ["bad"]


def test_fp8_is_refused_by_name(client, save, check_problem):
    text = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [4, 4], "data_offsets": [0, 16]}}).encode()
    data = len(text).to_bytes(8, "little") + text + bytes(16)
    problem = check_problem(masks(client, data), 422, "no_tensor_fits")
    assert "F8_E4M3" in problem["skipped"][0]["reason"]
    check_problem(masks(client, data, layers="w"), 422, "tensor_does_not_fit", "'w'", "F8_E4M3")


def test_ragged_edges_are_refused_on_demand(client, save, check_problem):
    data = save({"w": np.ones((6, 6), np.float32)})
    response = masks(client, data, pattern="transposable 2:4", ragged="error", layers="w")
    check_problem(response, 422, "tensor_does_not_fit", "'w'", "6x6")


def test_selection(client, save):
    data = save({f"{part}.{kind}": EYE for part in "ab" for kind in ("query", "key")} | {"norm": EYE[0]})
    response = client.post(
        "/v1/masks", params=[("pattern", "2:4"), ("layers", "*.query"), ("layers", "b.*"), ("exclude", "b.key")],
        content=data,
    )  # fmt: skip
    found = response.json()
    assert [tensor["name"] for tensor in found["tensors"]] == ["a.query", "b.query"]
    assert {skip["name"]: skip["reason"] for skip in found["skipped"]} == {
        "a.key": "not selected", "b.key": "excluded", "norm": "not selected",
    }  # fmt: skip


def test_a_layer_that_is_not_there(client, save, check_problem):
    problem = check_problem(masks(client, save({"w": EYE}), layers="v"), 422, "unknown_tensor", "'v'")
    assert problem["tensor"] == "v"
    check_problem(masks(client, save({"w": EYE}), exclude="*"), 422, "no_tensor_fits")
    check_problem(masks(client, save({})), 422, "no_tensor_fits", "there are no tensors")


@pytest.mark.parametrize("option", ["layers", "exclude"])
def test_globs_that_match_nothing_are_rejected_by_name(client, save, check_problem, option):
    data = save({"w": EYE, "x": EYE})
    for texts in ("v*", ["x", "v*"]):
        problem = check_problem(masks(client, data, **{option: texts}), 422, "unknown_tensor", "'v*'", "there are w, x")
        assert problem["tensor"] == "v*"


def test_names_with_the_signs_of_globs_are_names(client, save):
    data = save({"w[0]": EYE, "w0": EYE, "w*": EYE, "c[1]": EYE.astype(np.int8)})
    chosen = {"w[0]": ["w*", "w0"], "w*": ["w0", "w[0]"], "w[[]*": ["w*", "w0"]}
    for text, left in chosen.items():
        assert sorted(tensor["name"] for tensor in masks(client, data, exclude=text).json()["tensors"]) == left
    for text in ("w[0]", "w*", "c[1]"):
        assert [tensor["name"] for tensor in masks(client, data, layers=text).json()["tensors"]] == [text]


def test_only_its_full_name_selects_a_tensor_of_integers(client, save):
    data = save({"w": EYE, "codes": EYE.astype(np.uint8)})
    answer = masks(client, data, layers=["w", "c*"]).json()
    assert [tensor["name"] for tensor in answer["tensors"]] == ["w"]
    assert answer["skipped"] == [
        {"name": "codes", "reason": "dtype U8 is not a float type; only its full name selects it"}
    ]
    assert len(masks(client, data, layers=["w", "codes"]).json()["tensors"]) == 2


def test_a_tensor_that_is_named_and_excluded_is_left_out(client, save):
    answer = masks(client, save({"w": EYE, "x": EYE}), layers=["w", "x"], exclude="x*").json()
    assert answer["skipped"] == [{"name": "x", "reason": "excluded"}]


def test_documents_about_uploads_that_do_not_fit_them(client, put, save, check_problem):
    digest = put(save({"w": EYE}))
    check_problem(job(client, "0" * 64), 409, "upload_not_found", "0" * 64)
    inputs = [{"name": "w", "digest": digest, "key": "x"}]
    check_problem(job(client, "", tensors=inputs), 422, "unknown_tensor", "'w'", "'x'")
    twice = [{"name": "w", "digest": digest, "key": "w"}] * 2
    check_problem(job(client, "", tensors=twice), 422, "invalid_document", "'w'", "twice")
    many = [{"name": str(k), "digest": digest, "key": "w"} for k in range(6)]
    check_problem(job(client, "", tensors=many), 413, "too_many_tensors", "6 tensors")
    reserved = [{"name": "__metadata__", "digest": digest, "key": "w"}]
    check_problem(job(client, "", tensors=reserved), 422, "invalid_document", "__metadata__")


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 422, ["body"]),
        (b"{oops", 400, ["body.1", "JSON", "Expecting property name"]),
        (b'{"pattern": "2:4", "pattern": "1:4", "tensors": []}', 400, ["'pattern' is given twice"]),
        (b'{"pattern": "2:4", "tensors": [{"key": "w", "key": "w"}]}', 400, ["'key' is given twice"]),
        (b'{"pattern": "2:4", "time_limit_s": true, "tensors": []}', 422, ["body.time_limit_s", "number"]),
        (b'{"pattern": "2:4", "time_limit_s": "5", "tensors": []}', 422, ["body.time_limit_s", "'5'"]),
        (b"\xff\xfe", 400, ["utf-8", "position 0"]),
        (b"[" * 32, 400, []),
        (b'{"pattern": ' + b"9" * 5000 + b"}", 400, []),
        (b"[1, 2]", 422, ["body"]),
        (b"null", 422, ["body"]),
        (b'"2:4"', 422, ["body"]),
        (b"{}", 422, ["body.pattern"]),
        (b'{"pattern": "2:4", "tensors": []}', 422, ["body.tensors"]),
        (b'{"pattern": "2:4", "tensors": [{"name": "w"}]}', 422, ["body.tensors.0.key"]),
        (b'{"pattern": "2:4", "tensors": [{"name": "w", "key": "w"}]}', 422, ["body.tensors.0", "digest", "reference"]),
        (b'{"pattern": "2:4", "kind": "oracle", "tensors": []}', 422, ["body", "oracle"]),
        (b'{"\\ud800": 1, "pattern": "2:4"}', 422, []),
        (b'{"pattern": "\\ud800", "tensors": []}', 422, ["body.pattern"]),
        (b'{"pattern": "2:4", "tensors": [{"name": "\\ud800", "digest": "' + b"0" * 64 + b'", "key": "w"}]}', 422, []),
        (b'{"time_limit_s": NaN, "pattern": "2:4", "tensors": []}', 422, ["body.time_limit_s"]),
    ],
    ids=range(21),
)
def test_malformed_documents(client, check_problem, content, status, words):
    response = client.post("/v1/jobs", content=content, headers={"Content-Type": "application/json"})
    check_problem(response, status, "invalid_document", *words)


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/plain"}])
def test_a_document_without_its_content_type_is_told_so(client, check_problem, headers):
    response = client.post("/v1/jobs", content=b'{"pattern": "2:4"}', headers=headers)
    check_problem(response, 422, "invalid_document", "Content-Type: application/json")


def test_an_idempotency_key_is_not_empty(client, good, check_problem):
    response = client.post("/v1/masks?pattern=2:4", content=good, headers={"Idempotency-Key": ""})
    check_problem(response, 422, "invalid_document", "Idempotency-Key")


@pytest.mark.parametrize("chunked", [True, False])
def test_a_document_beyond_the_limit(client, check_problem, chunked):
    content = json.dumps({"pattern": "2:4", "tensors": ["x" * 20_000]}).encode()
    body = (content[k : k + 1000] for k in range(0, len(content), 1000)) if chunked else content
    response = client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert check_problem(response, 413, "body_too_large", "10000")["limit"] == 10_000


@pytest.mark.parametrize(
    "content", [b"[" * 33, b'{"a":' * 1000, b'{"pattern": "[[[", "tensors": ' + b"[" * 32 + b"]" * 32 + b"}"]
)
def test_a_document_nested_too_deep(client, check_problem, content):
    response = client.post("/v1/jobs", content=content, headers={"Content-Type": "application/json"})
    assert check_problem(response, 413, "document_too_deep", "max_document_depth = 32")["limit"] == 32


@pytest.mark.parametrize(
    ("text", "deep"),
    [(b"", 0), (b"3", 0), (b"[]", 1), (b'{"a": [1, {"b": []}], "c": [[]]}', 4), (b'["[[[", "\\"[[", "\\\\"]', 1),
     (b'"' + b"[" * 3 * 2**20, 0), (b'{"a":"' + b"{" * 2**20 + b'","b":[[]]}', 3), (b"[]" * 2**20 + b"[[]]", 2)],
    ids=range(8),
)  # fmt: skip
def test_depth_counts_what_is_outside_of_strings(text, deep):
    assert depth(text) == deep


@pytest.mark.parametrize("job", ["nope", "x" * 500, "%20", "%F0%9F%92%A9", "__metadata__"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("GET", "/masks"), ("GET", "/events"), ("POST", "/cancel"), ("DELETE", "")],
    ids=["get", "masks", "events", "cancel", "delete"],
)
def test_an_unknown_job(client, check_problem, method, path, job):
    check_problem(client.request(method, f"/v1/jobs/{job}{path}"), 404, "job_not_found")


def test_no_such_page_and_no_such_method(client, check_problem):
    for path in ("/nothing", "/v1", "/v1/nothing", "/v1/jobs/a/b/c", "/v2/masks"):
        check_problem(client.get(path), 404, "not_found", path)
    for method, path, allowed in [("GET", "/v1/masks", "POST"), ("GET", "/v1/tensors", "POST"),
                                  ("PATCH", "/v1/jobs", ""),
                                  ("PATCH", "/v1/tensors/" + "0" * 64, "PUT"), ("POST", "/healthz", "GET"),
                                  ("GET", "/v1/jobs/x/cancel", "POST")]:  # fmt: skip
        response = client.request(method, path)
        check_problem(response, 405, "method_not_allowed", method)
        assert allowed in response.headers["allow"]


@pytest.mark.parametrize(
    ("path", "words"),
    [("/v1/jobs?limit=0", ["query.limit", "0"]), ("/v1/jobs?limit=many", ["query.limit", "many"]),
     ("/v1/jobs?after=" + "a" * 100, ["query.after"])],
    ids=["none", "word", "long"],
)  # fmt: skip
def test_bad_pages(client, check_problem, path, words):
    check_problem(client.get(path), 422, "invalid_document", *words)


@pytest.mark.parametrize(
    ("pattern", "asked", "words"),
    [
        ("50%", {"budget": "half"}, ["'half' is not a share"]),
        ("50%", {"budget": "30%"}, ["50% contradicts the budget 30%"]),
        ("50%", {"budget": "50%", "floors": ["v*=10%"]}, ["floor 'v*' matches no layer"]),
        ("50%", {"budget": "50%", "floors": ["w=80%"]}, ["need 52"]),
        ("50%", {"budget": "50%", "floors": ["w"]}, ["GLOB=SHARE%"]),
        ("50%", {"floors": ["w=10%"]}, ["without a budget"]),
        ("0.1%", {"budget": "0.1%"}, ["rounds to none"]),
        ("2:4", {"budget": "10%"}, ["need 16"]),
        ("channels 50%", {"budget": "50%"}, ["nothing else"]),
    ],
)
def test_budgets_that_cannot_be_met(client, put, save, check_problem, pattern, asked, words):
    data = save({"w": EYE})
    check_problem(masks(client, data, pattern=pattern, **asked), 422, "invalid_budget", *words)
    check_problem(job(client, put(data), pattern=pattern, **asked), 422, "invalid_budget", *words)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("/v1/jobs?since=x&since=8", "since"),
        ("/v1/jobs?limit=1&state=queued&state=running&limit=2", "limit"),
        ("/jobs/1a229b5397b79bb082c3a4e4e72/layer?tensor=a&tensor=b", "tensor"),
    ],
)
def test_a_parameter_that_has_one_value_is_given_once(client, address, name):
    response = client.get(address)
    assert response.status_code == 422
    problem = response.json()
    assert problem["code"] == "invalid_document"
    assert problem["detail"] == f"query parameter {name!r} is given 2 times; give it once"


def test_a_list_may_be_given_as_several_parameters(client):
    assert client.get("/v1/jobs?state=queued&state=running&label=a&label=b").status_code == 200


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_a_document_in_another_encoding_is_refused(client, check_problem, encoding):
    # Its depth cannot be computed from its bytes: the first letter has the byte of a quote.
    text = '{"x": "\u2200", "pattern": ' + "[" * 900 + "]" * 900 + "}"
    response = client.post("/v1/jobs", content=text.encode(encoding), headers={"Content-Type": "application/json"})
    check_problem(response, 400, "invalid_document", "UTF-8")
