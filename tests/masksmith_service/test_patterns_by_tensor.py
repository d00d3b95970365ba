"""A pattern for each tensor, in job documents and in the query of a file; the worker's part is in test_runner."""

import numpy as np
import pytest

NAMES = ["a.0.attn.q.weight", "a.0.mlp.up.weight"]


@pytest.fixture
def data(save):
    return save({name: np.arange(64, dtype=np.float32).reshape(8, 8) + number for number, name in enumerate(NAMES)})


@pytest.fixture
def document(put, data):
    digest = put(data)

    def document(*patterns, **options):
        tensors = [
            {"name": name, "digest": digest, "key": name} | ({"pattern": pattern} if pattern else {})
            for name, pattern in zip(NAMES, patterns, strict=True)
        ]
        return {"kind": "masks", "pattern": "2:4", "tensors": tensors, **options}

    return document


def patterns_of(job):
    return job["pattern"], [tensor["pattern"] for tensor in job["tensors"]]


@pytest.mark.parametrize(
    ("patterns", "text", "reported"),
    [
        ((None, None), "2:4", [None, None]),
        (("2:4", " 2:4 "), "2:4", [None, None]),
        ((None, "Transposable 4:8"), "2:4, transposable 4:8", ["2:4", "transposable 4:8"]),
        (("1:4", "1:4"), "1:4", ["1:4", "1:4"]),
    ],
)
def test_a_document_gives_tensors_their_own_patterns(client, document, patterns, text, reported):
    response = client.post("/v1/jobs", json=document(*patterns))
    assert response.status_code == 202, response.text
    assert patterns_of(response.json()) == (text, reported)
    (listed,) = client.get("/v1/jobs").json()["jobs"]
    assert listed["pattern"] == text


@pytest.mark.parametrize(
    ("query", "reported"),
    [
        (["2:4"], [None, None]),
        (["2:4", "mlp=transposable 4:8"], ["2:4", "transposable 4:8"]),
        (["attn=1:4", "a.0.mlp.*=<=2:4"], ["1:4", "<=2:4"]),
    ],
)
def test_a_query_gives_tensors_their_own_patterns(client, data, query, reported):
    job = client.post("/v1/masks", params={"pattern": query}, content=data).json()
    assert patterns_of(job) == (", ".join(dict.fromkeys(filter(None, reported))) or "2:4", reported)


def test_a_tensor_without_any_pattern_stays_dense(client, data):
    job = client.post("/v1/masks", params={"pattern": "attn=1:4"}, content=data).json()
    assert [tensor["name"] for tensor in job["tensors"]] == NAMES[:1]
    assert job["skipped"] == [{"name": NAMES[1], "reason": "no pattern is given for it"}]


@pytest.mark.parametrize(
    ("pattern", "options", "code"),
    [
        ("5:4", {}, "invalid_pattern"),
        ("", {}, "invalid_pattern"),
        ("mlp=2:4", {}, "invalid_pattern"),
        ("transposable 4:8", {"solver": "top-k"}, "solver_refused"),
        ("2:4", {"budget": "50%"}, "invalid_budget"),
    ],
)
def test_a_bad_pattern_of_one_tensor_is_refused_with_its_name(client, document, check_problem, pattern, options, code):
    own = document(None, None, **options)
    own["tensors"][1]["pattern"] = pattern
    problem = check_problem(client.post("/v1/jobs", json=own), 422, code)
    assert (problem["tensor"], problem["pattern"]) == (NAMES[1], pattern)
    assert NAMES[1] in problem["detail"]


def test_a_tensor_that_its_own_pattern_does_not_fit_is_refused(client, document, check_problem):
    own = document(None, "3:5", ragged="error")
    problem = check_problem(client.post("/v1/jobs", json=own), 422, "tensor_does_not_fit")
    assert problem["tensor"] == NAMES[1]


@pytest.mark.parametrize(
    ("query", "options", "code", "named"),
    [
        (["2:4", "1:4"], {}, "invalid_pattern", {}),
        (["2:4", "mlp=9:8"], {}, "invalid_pattern", {}),
        (["2:4", "nothing=1:4"], {}, "unknown_tensor", {"tensor": "nothing"}),
        (["2:4", "mlp=1:4"], {"budget": "50%"}, "invalid_budget", {"budget": "50%", "pattern": "1:4"}),
        (["2:4", "mlp=transposable 4:8"], {"solver": "top-k"}, "solver_refused", {}),
    ],
)
def test_a_bad_query_is_refused(client, data, check_problem, query, options, code, named):
    response = client.post("/v1/masks", params={"pattern": query, **options}, content=data)
    problem = check_problem(response, 422, code)
    assert named.items() <= problem.items()
