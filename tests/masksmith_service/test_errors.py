"""The table from code to status, and what domain errors become."""

import re
from pathlib import Path

import pytest
import redis
from obstore.exceptions import GenericError

from masksmith_service.errors import DOMAIN_ERRORS, STATUS, RequestError, translate
from masksmith_state.errors import (
    ChangedSourceError,
    InvalidLocationError,
    NoMasksError,
    NoRootError,
    RootUnavailableError,
    TooManyShardsError,
)
from masksmith_state.jobs.shared_keys import DamagedBrokerError
from masksmith_wire.errors import Code

ROOT = Path(__file__).parents[2]
ROWS = {
    row[1]: row[0]
    for row in re.finditer(r"^\| `(\w+)` \| (?:\d{3}|in a job).*$", (ROOT / "docs/http.md").read_text(), re.MULTILINE)
}
"""The documented codes, and the rows of their table."""
DOCUMENTED = {code: row.split(" | ")[1] for code, row in ROWS.items()}


@pytest.mark.parametrize("code", Code)
def test_every_code_has_the_status_that_is_documented(code):
    documented = DOCUMENTED[code]
    assert STATUS.get(code) == (None if documented == "in a job" else int(documented[:3]))


def codes_in(folder, pattern):
    """The codes, and what else a pattern captures, in the source of a package."""
    return [
        match for path in (ROOT / folder).rglob("*.py") for match in re.findall(pattern, path.read_text(), re.DOTALL)
    ]


def test_codes_that_workers_write_are_documented_as_those_of_jobs():
    codes = {Code[name] for folder in ("worker", "state") for name in codes_in(folder, r"\bCode\.([A-Z_]+)")}
    assert len(codes) > 15
    assert [code for code in codes if "in a job" not in DOCUMENTED[code]] == []


def test_a_status_that_is_not_the_tables_is_documented():
    calls = codes_in("service", r"RequestError\(\s*Code\.([A-Z_]+)[^)]*?\bstatus=(\d{3})")
    assert len(calls) >= 4
    assert [call for call in calls if f"({call[1]}" not in ROWS[Code[call[0]]]] == []


def test_only_codes_with_a_status_answer_requests():
    with pytest.raises(KeyError):
        RequestError(Code.ATTEMPTS_EXHAUSTED, "only ever in a job's document")


def test_a_status_may_be_another_than_the_tables():
    assert RequestError(Code.TOO_MANY_JOBS, "").status == 503
    assert RequestError(Code.TOO_MANY_JOBS, "", status=429).problem().status == 429


@pytest.mark.parametrize(
    ("error", "status", "code", "words"),
    [
        (
            NoMasksError("ab", "benchmark"),
            404,
            "result_not_found",
            "benchmark and has no masks; its results: /v1/jobs/ab/b",
        ),
        (TooManyShardsError(7), 413, "too_many_shards", "max_shards = 7"),
        (redis.ConnectionError("gone"), 503, "broker_unavailable", "try again"),
        (
            redis.ReadOnlyError("replica"),
            503,
            "broker_unavailable",
            "refused a command, or a record is damaged; the service's log",
        ),
        (
            DamagedBrokerError("masksmith:jobs", "list", "zset"),
            503,
            "broker_unavailable",
            "must delete it, or restore",
        ),
        (InvalidLocationError("/a/..", "no"), 422, "invalid_reference", "'/a/..': no"),
        (NoRootError("/a"), 404, "root_not_found", "'/a' is in no root"),
        (ChangedSourceError("/a", "its ETag is not the same"), 409, "reference_changed", "submit the job again"),
        (RootUnavailableError("s3://a/b", "403"), 503, "root_unavailable", "'s3://a/b' cannot be accessed: 403"),
        (GenericError("full"), 503, "store_unavailable", "nothing was written"),
    ],
)
def test_domain_errors_become_problems(error, status, code, words):
    problem = translate(error).problem()
    assert isinstance(error, DOMAIN_ERRORS)
    assert (problem.status, problem.code) == (status, code)
    assert words in problem.detail


def test_other_errors_are_not_translated():
    with pytest.raises(TypeError):
        translate(ValueError())


def test_a_problem_carries_what_was_at_fault():
    error = RequestError(Code.TOO_MANY_TENSORS, "too many", limit=7)
    assert error.problem("/v1/jobs").model_dump(mode="json") == {
        "type": "about:blank", "title": "Too many tensors", "status": 413, "code": "too_many_tensors",
        "detail": "too many", "instance": "/v1/jobs", "limit": 7,
    }  # fmt: skip
