"""Exceptions of the client can be copied, and sent between processes."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from masksmith_client import Client, ClientError, InputError, JobFailedError, NotFound, StatusError
from masksmith_wire.errors import Code, ProblemDocument

from .conftest import FakeService

COPIES = [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))]


@pytest.mark.parametrize("copied", COPIES)
def test_an_error_status_can_be_copied(copied: Any) -> None:
    problem = ProblemDocument(title="gone", status=404, code=Code.JOB_NOT_FOUND, detail="no such job", more=[1])
    error = NotFound(problem, "request", 3.0)
    error.add_note("a note")
    again = copied(error)
    assert type(again) is NotFound
    assert (str(again), again.__notes__) == (str(error), ["a note"])
    assert (again.problem, again.code, again.status, again.request_id, again.retry_after_s) == (
        problem, Code.JOB_NOT_FOUND, 404, "request", 3.0
    )  # fmt: skip


@pytest.mark.parametrize("copied", COPIES)
def test_a_failed_job_can_be_copied_without_its_session(service: FakeService, client: Client, copied: Any) -> None:
    service.bad_tensors = {"a"}
    with pytest.raises(JobFailedError) as failed:
        client.solve({"a": np.ones((4, 4))}, "2:4")
    again = copied(failed.value)
    assert str(again) == str(failed.value)
    assert again.job.document == failed.value.job.document
    assert again.job.id == failed.value.job.id
    assert again.job.skipped == failed.value.job.skipped


@pytest.mark.parametrize("kind", [InputError, ClientError])
def test_other_errors_can_be_copied(kind: type[ClientError]) -> None:
    again = pickle.loads(pickle.dumps(kind("why")))
    assert (type(again), str(again)) == (kind, "why")


def test_all_errors_with_arguments_of_their_own_are_tested() -> None:
    kinds = [ClientError, *ClientError.__subclasses__()]
    assert {kind for kind in kinds if "__init__" in vars(kind)} == {StatusError, JobFailedError}
