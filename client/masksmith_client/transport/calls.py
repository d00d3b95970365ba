"""The wire, version 1: every request as a value, with the way to read its answer. No I/O here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, TypeAdapter, ValidationError

from masksmith.benchmark import Report
from masksmith_client._errors import (
    BadRequest,
    Conflict,
    NotFound,
    RateLimited,
    ServerError,
    StatusError,
    Unauthorized,
    WireError,
)
from masksmith_wire import WIRE_VERSION
from masksmith_wire.benchmarks import BenchmarkRequest
from masksmith_wire.documents import Job, JobPage, MasksRequest, WorkerInfo
from masksmith_wire.errors import Code, ProblemDocument

T = TypeVar("T")
Body = Callable[[], Iterator[bytes]]

_BY_STATUS: Mapping[int, type[StatusError]] = {
    401: Unauthorized, 403: Unauthorized, 404: NotFound, 410: NotFound, 409: Conflict, 429: RateLimited,
}  # fmt: skip

SENT_AGAIN = frozenset({Code.UPLOAD_NOT_FOUND, Code.UPLOAD_DAMAGED})
"""Why a job is refused whose uploads have to be sent once more."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request.

    Attributes:
        parse: Reads the answer; what it raises of `ValueError` means that the answer is not masksmith's.
        body: Gives the body anew for every attempt.
        expected: Statuses beyond 2xx that are answers, not errors.
    """

    method: str
    path: str
    parse: Callable[[httpx2.Response], T]
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    expected: frozenset[int] = frozenset()

    def read(self, response: httpx2.Response) -> T:
        """Read an answer whose body has arrived.

        Raises:
            StatusError: If it is an error response.
            WireError: If it cannot be understood.
        """
        if not response.is_success and response.status_code not in self.expected:
            raise refusal(response)
        try:
            return self.parse(response)
        except ValueError:
            raise WireError(
                f"{response.request.url} answered something else than masksmith would; is the URL right?"
            ) from None


def refusal(response: httpx2.Response) -> StatusError:
    """Make the exception for an error response; a body that is no problem document becomes one."""
    status = response.status_code
    try:
        problem = ProblemDocument.model_validate_json(response.content)
    except ValidationError:
        detail = f"{response.request.method} {response.request.url} answered {status} {response.reason_phrase}"
        problem = ProblemDocument(title=response.reason_phrase, status=status, code=Code.INTERNAL, detail=detail)
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else BadRequest)
    return kind(problem, response.headers.get("x-request-id"), _seconds(response.headers.get("retry-after")))


def _seconds(text: str | None) -> float | None:
    # HTTP also allows a date here, which masksmith never sends; a proxy's date is ignored.
    return float(text) if text is not None and text.isdigit() else None


def _document(model: type[BaseModel]) -> Callable[[httpx2.Response], Any]:
    return lambda response: model.model_validate_json(response.content)


def _nothing(_: httpx2.Response) -> None:
    return None


def _exists(response: httpx2.Response) -> bool:
    return response.status_code != 404


def _json(response: httpx2.Response) -> Any:
    return response.json()


def has_tensor(digest: str) -> Call[bool]:
    """Ask whether the service has a tensor already."""
    return Call("HEAD", f"/v1/tensors/{digest}", _exists, expected=frozenset({404}))


def put_tensor(digest: str, body: Body, size: int) -> Call[None]:
    """Send a tensor; `size` lets the service refuse before it reads."""
    headers = {"content-type": "application/octet-stream", "content-length": str(size)}
    return Call("PUT", f"/v1/tensors/{digest}", _nothing, headers=headers, body=body)


def post_job(request: MasksRequest | BenchmarkRequest, idempotency_key: str) -> Call[Job]:
    """Submit a job; the same key gives the same job, however often it is sent."""
    content = request.model_dump_json(exclude_none=True).encode()
    headers = {"content-type": "application/json", "idempotency-key": idempotency_key}
    return Call("POST", "/v1/jobs", _document(Job), headers=headers, body=lambda: iter([content]))


def get_benchmark(job: str) -> Call[Report]:
    """Get the report of a benchmark."""

    def parse(response: httpx2.Response) -> Report:
        try:
            return Report.read(response.json())
        except (KeyError, TypeError) as error:
            raise ValueError(str(error)) from None

    return Call("GET", f"/v1/jobs/{_segment(job)}/benchmark", parse)


def get_job(job: str) -> Call[Job]:
    """Look at a job."""
    return Call("GET", f"/v1/jobs/{_segment(job)}", _document(Job))


def list_jobs(after: str | None, limit: int) -> Call[JobPage]:
    """Get a page of jobs, newest first."""
    params = {"limit": str(limit)} | ({} if after is None else {"after": after})
    return Call("GET", "/v1/jobs", _document(JobPage), params=params)


def cancel_job(job: str) -> Call[Job]:
    """Cancel a job."""
    return Call("POST", f"/v1/jobs/{_segment(job)}/cancel", _document(Job))


def delete_job(job: str) -> Call[None]:
    """Forget a job; a repeated attempt that finds it gone has succeeded."""
    return Call("DELETE", f"/v1/jobs/{_segment(job)}", _nothing)


def get_masks(job: str) -> Call[None]:
    """Download a job's masks."""
    return Call("GET", f"/v1/jobs/{_segment(job)}/masks", _nothing)


def get_weights(job: str) -> Call[None]:
    """Download a job's updated weights."""
    return Call("GET", f"/v1/jobs/{_segment(job)}/weights", _nothing)


def get_events(job: str, last_id: str | None) -> Call[None]:
    """Follow a job from after the event `last_id`."""
    headers = {"accept": "text/event-stream"} | ({} if last_id is None else {"last-event-id": last_id})
    return Call("GET", f"/v1/jobs/{_segment(job)}/events", _nothing, headers=headers)


def check_wire() -> Call[None]:
    """Ask whether a masksmith service that speaks this wire is there, before much is sent to it."""

    def parse(response: httpx2.Response) -> None:
        document = response.json()
        if not isinstance(document, dict) or not isinstance(document.get("wire_version"), int):
            raise ValueError
        version = document["wire_version"]
        if version != WIRE_VERSION:
            older = "the service" if version < WIRE_VERSION else "this client"
            raise WireError(f"the service speaks wire version {version}, this client {WIRE_VERSION}: upgrade {older}")

    return Call("GET", "/healthz", parse)


def get_readiness() -> Call[ProblemDocument | None]:
    """Ask whether the service can work; None when it can, else what stops it."""

    def parse(response: httpx2.Response) -> ProblemDocument | None:
        return None if response.is_success else refusal(response).problem

    return Call("GET", "/readyz", parse, expected=frozenset({503}))


def get_workers() -> Call[list[WorkerInfo]]:
    """List the workers that live; none for a key that may not see them."""

    def parse(response: httpx2.Response) -> list[WorkerInfo]:
        if response.status_code == 403:
            return []
        document = response.json()
        members = document["workers"] if isinstance(document, dict) and "workers" in document else document
        return TypeAdapter(list[WorkerInfo]).validate_python(members)

    return Call("GET", "/v1/workers", parse, expected=frozenset({403}))


def get_capabilities(what: str) -> Call[Any]:
    """Get what this installation offers: `patterns`, `solvers` or `kernels`."""
    return Call("GET", f"/v1/{what}", _json)


def _segment(text: str) -> str:
    # An id typed by hand must not reach another path.
    return quote(text, safe="")
