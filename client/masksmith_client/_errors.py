"""What can go wrong, as a tree.

ClientError
├── InputError          what was passed in cannot be used; nothing was sent (also a ValueError)
├── TransportError      no usable answer, after all retries
│   ├── ConnectError    nothing listens at the URL
│   └── TimeoutError    too slow, or `timeout_s` is over (also the builtin TimeoutError)
├── StatusError         the service refused; carries its problem document
│   ├── BadRequest      400, 413, 415, 422 and other 4xx: the request itself is at fault
│   ├── Unauthorized    401, 403: the token is missing or wrong
│   ├── NotFound        404, 410: no such job, tensor or result
│   ├── Conflict        409: not now, such as masks of a job that still runs
│   ├── RateLimited     429: full, after all retries
│   └── ServerError     5xx: the service failed, after all retries
└── JobFailedError      the service did its part, but the job failed or was canceled; carries the job
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from contextlib import contextmanager

from masksmith_wire.documents import CaseView, JobState, TensorReport
from masksmith_wire.errors import ProblemDocument

from ._job_view import JobView


class ClientError(Exception):
    """Base of everything this package raises on purpose.

    Attributes:
        exit_code: What the command line exits with.
    """

    exit_code = 1


class InputError(ClientError, ValueError):
    """What was passed in cannot be used; the message names the value. Nothing was sent."""

    exit_code = 2


@contextmanager
def as_input_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Raise exceptions of these kinds as `InputError`, with their own message."""
    try:
        yield
    except kinds as error:
        raise InputError(str(error)) from None


class TransportError(ClientError):
    """No usable answer arrived, even after retries."""


class ConnectError(TransportError):
    """Nothing listens at the service's URL."""


class TimeoutError(TransportError, builtins.TimeoutError):
    """A response took too long, or a job longer than `timeout_s` (the job itself goes on)."""


class WireError(TransportError):
    """The answer is not masksmith's, or of a version that this client does not speak."""


class StatusError(ClientError):
    """The service refused.

    Attributes:
        problem: The problem document: `detail` says what is wrong, extra members say with which value.
        code: Its stable name, such as `invalid_pattern`.
        status: The HTTP status.
        request_id: The request's id in the service's log, if the response has it.
    """

    def __init__(
        self, problem: ProblemDocument, request_id: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(f"{problem.detail} ({problem.code})")
        self.problem = problem
        self.code = problem.code
        self.status = problem.status
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class BadRequest(StatusError):
    """The request itself is at fault; sending it again will not help."""

    exit_code = 2


class Unauthorized(StatusError):
    """The token is missing or wrong."""

    exit_code = 2


class NotFound(StatusError):
    """There is no such job, tensor or result."""

    exit_code = 2


class Conflict(StatusError):
    """Not in this state, such as asking for the masks of a job that still runs."""

    exit_code = 2


class RateLimited(StatusError):
    """The service is full."""


class ServerError(StatusError):
    """The service failed."""


class JobFailedError(ClientError):
    """A job ended without all of its masks; those of its good tensors remain downloadable by `job.masks()`.

    Attributes:
        job: The job, with one report a tensor.
    """

    def __init__(self, job: JobView) -> None:
        super().__init__(_explain(job))
        self.job = job


def _explain(job: JobView) -> str:
    if job.state is JobState.CANCELED:
        return f"job {job.id} was canceled"
    parts: list[TensorReport | CaseView] = [*job.document.tensors, *job.document.cases]
    broken = [(part.name, part.error) for part in parts if part.error is not None]
    shown = "; ".join(f"{name}: {error.message} ({error.code})" for name, error in broken[:3])
    what = "tensor" if job.document.kind == "masks" else "case"
    more = f"; and {len(broken) - 3} more" if len(broken) > 3 else ""
    return f"job {job.id} failed for {len(broken)} of {len(parts)} {what}(s): {shown}{more}"
