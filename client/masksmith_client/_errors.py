"""The exceptions that the client raises.

ClientError
├── InputError          an argument or an input file is invalid (also a ValueError)
├── TransportError      no valid response, after all retries
│   ├── ConnectError    no connection to the URL
│   ├── TimeoutError    too slow, or `timeout_s` exceeded (also the builtin TimeoutError)
│   └── WireError       not a masksmith service's response, another wire version, or not what was requested
├── StatusError         the service answered with an error status; carries its problem document
│   ├── BadRequest      400, 413, 415, 422 and other 4xx: the request is invalid
│   ├── Unauthorized    401, 403: the token is missing or wrong, or its key may not do this
│   ├── NotFound        404, 410: no such job, tensor or result, or none that can be read
│   ├── Conflict        409: not possible in the present state, such as masks of a job that still runs
│   ├── RateLimited     429: a limit is reached, after all retries
│   └── ServerError     5xx: the service failed, after all retries
└── JobFailedError      the job failed or was canceled; carries the job
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from masksmith_wire.documents import CaseView, JobState, OutputReport, TensorReport
from masksmith_wire.errors import ProblemDocument
from masksmith_wire.text import printable

from ._job_view import JobView


class ClientError(Exception):
    """Base class of this package's exceptions.

    Attributes:
        exit_code: Exit code of the command line.
    """

    exit_code = 1


class InputError(ClientError, ValueError):
    """An argument or an input file is invalid, or a file cannot be read; the message names it."""

    exit_code = 2


@contextmanager
def as_input_errors(*exception_types: type[Exception]) -> Iterator[None]:
    """Convert exceptions of these types to `InputError`, with the same message."""
    try:
        yield
    except exception_types as error:
        raise InputError(str(error)) from None


class TransportError(ClientError):
    """No valid response arrived, even after retries."""


class ConnectError(TransportError):
    """No connection to the service's URL can be made."""


class TimeoutError(TransportError, builtins.TimeoutError):
    """A response took too long, or a job took longer than `timeout_s`; the job itself continues."""


class SlowResponseError(TimeoutError):
    """The head or the body of a response arrives too slowly. The request is not retried: a retry would be as slow."""


class WireError(TransportError):
    """The response is not from a masksmith service, is of another wire version, or is not what was requested."""


class StatusError(ClientError):
    """The service answered with an error status.

    Attributes:
        problem: The problem document: `detail` is the message, extra members are the values that the message refers to.
        code: The error code, such as `invalid_pattern`.
        status: The HTTP status.
        request_id: The request's id in the service's log; None if the response has none.
        retry_after_s: The pause in seconds that the service asks for before a retry; None if it names none.
    """

    def __init__(
        self, problem: ProblemDocument, request_id: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(_printable_lines(f"{problem.detail} ({problem.code})"))
        self.problem = problem
        self.code = problem.code
        self.status = problem.status
        self.request_id = request_id
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[Any, ...]:
        # By default, unpickling would call the class with the message as `problem`, and fail.
        return type(self), (self.problem, self.request_id, self.retry_after_s), self.__dict__


class BadRequest(StatusError):
    """The request is invalid; a retry would fail, too."""

    exit_code = 2


class Unauthorized(StatusError):
    """The token is missing or wrong, or its key is not allowed to make the request."""

    exit_code = 2


class NotFound(StatusError):
    """The job, tensor or result does not exist, has expired, or cannot be read."""

    exit_code = 2


class Conflict(StatusError):
    """The request is not possible in the present state, such as downloading the masks of a job that still runs."""

    exit_code = 2


class RateLimited(StatusError):
    """A limit of the service is reached."""


class ServerError(StatusError):
    """The service failed to handle the request."""


class JobFailedError(ClientError):
    """A job failed or was canceled; masks that were solved can be downloaded by `job.masks()`.

    Attributes:
        job: The job, with one report per tensor or case. In a copy, or after unpickling, it has the job's document, and
            no connection to the service: `client.jobs.get(error.job.id)` returns a job that has one.
    """

    def __init__(self, job: JobView) -> None:
        super().__init__(_printable_lines(_failure_message(job)))
        self.job = job

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: value for name, value in self.__dict__.items() if name != "job"}
        return type(self), (self.job._without_session(),), state


def _printable_lines(message: str) -> str:
    """Replace control characters other than line breaks: a terminal would obey them when a traceback is printed."""
    return "\n".join(map(printable, message.splitlines()))


def _failure_message(job: JobView) -> str:
    if job.state is JobState.CANCELED:
        return f"job {job.id} was canceled"
    reports: list[TensorReport | CaseView] = [*job.document.tensors, *job.document.cases]
    output = job.document.output
    if output is not None and all(report.error is None for report in reports):
        return _output_message(job, output)
    errors = [(report.name, report.error) for report in reports if report.error is not None]
    first_errors = "; ".join(f"{name}: {error.message} ({error.code})" for name, error in errors[:3])
    noun = "tensor" if job.document.kind == "masks" else "case"
    more = f"; and {len(errors) - 3} more" if len(errors) > 3 else ""
    return f"job {job.id} failed for {len(errors)} of {len(reports)} {noun}(s): {first_errors}{more}"


def _output_message(job: JobView, output: OutputReport) -> str:
    errors = [file.error for file in output.files if file.error is not None]
    first_errors = "; ".join(f"{error.message} ({error.code})" for error in errors[:3])
    return (
        f"job {job.id} has not written {len(errors)} of {len(output.files)} file(s) of {output.location}: "
        f"{first_errors}"
    )
