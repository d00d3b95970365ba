"""The HTTP calls of the client: the request and the response parser of each call. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, TypeAdapter, ValidationError

from masksmith.benchmark import Report
from masksmith_client._errors import (
    BadRequest,
    Conflict,
    InputError,
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
from masksmith_wire.references import ModelListing

T = TypeVar("T")
Body = Callable[[], Iterator[bytes]]

_ERROR_CLASSES: Mapping[int, type[StatusError]] = {
    401: Unauthorized, 403: Unauthorized, 404: NotFound, 410: NotFound, 409: Conflict, 429: RateLimited,
}  # fmt: skip
"""Classes of exceptions by HTTP status; other statuses are of `ServerError` (5xx) or `BadRequest`."""

_CODES_AND_ADVICE = {
    401: (
        Code.UNAUTHORIZED,
        ": the token is missing or not valid: send it as 'Authorization: Bearer ...'; the client takes it from "
        "MASKSMITH_TOKEN, and 'masksmith keys create' creates one",
    ),
    403: (Code.FORBIDDEN, ": the key may not do this"),
}
"""Error code and advice by HTTP status, for an error response without a problem document, such as a response to HEAD,
which has no body."""

REUPLOAD_CODES = frozenset({Code.UPLOAD_NOT_FOUND, Code.UPLOAD_DAMAGED})
"""Error codes of a job request that is refused because its tensors have to be uploaded again."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request, and how to parse its response.

    Attributes:
        method, path, params, headers: Parts of the request.
        parse: Parses the response; a `ValueError` means that the response is not from a masksmith service.
        body: Returns a new iterator over the body for each attempt; None if there is no body.
        expected: Statuses other than 2xx that `parse` handles.
    """

    method: str
    path: str
    parse: Callable[[httpx2.Response], T]
    params: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    expected: frozenset[int] = frozenset()

    def read(self, response: httpx2.Response) -> T:
        """Parse a response whose body has been read.

        Raises:
            StatusError: If its status is neither 2xx nor in `expected`.
            WireError: If it cannot be parsed.
        """
        if not response.is_success and response.status_code not in self.expected:
            raise status_error(response)
        try:
            return self.parse(response)
        except (ValueError, RecursionError):
            raise WireError(
                f"the response of {response.request.url} is not from a masksmith service; check the URL"
            ) from None


def status_error(response: httpx2.Response) -> StatusError:
    """Return the exception for an error response, also if its body is not a problem document."""
    status = response.status_code
    try:
        problem = ProblemDocument.model_validate_json(response.content)
    except ValidationError:
        detail = f"{response.request.method} {response.request.url} returned {status} {response.reason_phrase}"
        code, advice = _CODES_AND_ADVICE.get(status, (Code.INTERNAL, _foreign_advice(response)))
        problem = ProblemDocument(title=response.reason_phrase, status=status, code=code, detail=detail + advice)
    # The document's status is only a copy; a proxy may have changed that of the response.
    problem = problem.model_copy(update={"status": status})
    error_class = _ERROR_CLASSES.get(status, ServerError if status >= 500 else BadRequest)
    return error_class(problem, response.headers.get("x-request-id"), _seconds(response.headers.get("retry-after")))


def _foreign_advice(response: httpx2.Response) -> str:
    """Return advice on a response that the service probably did not send; empty if the service may have sent it."""
    location = response.headers.get("location")
    if response.is_redirect and location:
        return f" to {location}; redirects are not followed: if the service is there, set its URL to that address"
    return ", which is not a response of a masksmith service; check the URL" if response.content else ""


def _seconds(text: str | None) -> float | None:
    # HTTP also allows a date, which only a proxy would send; it is ignored.
    return float(text) if text is not None and text.isascii() and text.isdigit() else None


def _document(model: type[BaseModel]) -> Callable[[httpx2.Response], Any]:
    return lambda response: model.model_validate_json(response.content)


def _nothing(_: httpx2.Response) -> None:
    return None


def _exists(response: httpx2.Response) -> bool:
    return response.status_code != 404


def _json_of(*types: type) -> Callable[[httpx2.Response], Any]:
    """Return a parser of JSON documents of these types, such as `dict` for a JSON object."""

    def parse(response: httpx2.Response) -> Any:
        document = response.json()
        if not isinstance(document, types):
            raise ValueError(f"a JSON document of type {type(document).__name__}")
        return document

    return parse


def has_tensor(digest: str) -> Call[bool]:
    """Check whether the service has a tensor."""
    return Call("HEAD", f"/v1/tensors/{digest}", _exists, expected=frozenset({404}))


def put_tensor(digest: str, body: Body, size: int) -> Call[None]:
    """Upload a tensor; by its `size` the service can refuse it before reading the body."""
    headers = {"content-type": "application/octet-stream", "content-length": str(size)}
    return Call("PUT", f"/v1/tensors/{digest}", _nothing, headers=headers, body=body)


def post_job(request: MasksRequest | BenchmarkRequest, idempotency_key: str) -> Call[Job]:
    """Submit a job; repeated requests with the same idempotency key return the same job."""
    content = request.model_dump_json(exclude_none=True).encode()
    headers = {"content-type": "application/json", "idempotency-key": idempotency_key}
    return Call("POST", "/v1/jobs", _document(Job), headers=headers, body=lambda: iter([content]))


def get_benchmark(job: str) -> Call[Report]:
    """Download the report of a benchmark."""

    def parse(response: httpx2.Response) -> Report:
        try:
            return Report.read(response.json())
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(str(error)) from None

    return Call("GET", f"/v1/jobs/{_segment(job)}/benchmark", parse)


def get_job(job: str) -> Call[Job]:
    """Get a job's document."""
    return Call("GET", f"/v1/jobs/{_segment(job)}", _document(Job))


def list_jobs(after: str | None, limit: int, filters: Mapping[str, str | Sequence[str]]) -> Call[JobPage]:
    """Get a page of jobs, newest first: the one after job `after`, or the first if None.

    `filters` are query parameters.
    """
    params = {"limit": str(limit), **filters} | ({} if after is None else {"after": after})
    return Call("GET", "/v1/jobs", _document(JobPage), params=params)


def cancel_job(job: str) -> Call[Job]:
    """Cancel a job."""
    return Call("POST", f"/v1/jobs/{_segment(job)}/cancel", _document(Job))


def delete_job(job: str) -> Call[None]:
    """Delete a job and its results."""
    return Call("DELETE", f"/v1/jobs/{_segment(job)}", _nothing)


def get_output(job: str) -> Call[dict[str, Any]]:
    """Read the record of a job's output."""
    return Call("GET", f"/v1/jobs/{_segment(job)}/output", _json_of(dict))


def list_reference(location: str) -> Call[ModelListing]:
    """List the tensors of a file or model in a root of the service."""
    return Call("GET", "/v1/references", _document(ModelListing), params={"location": location})


def get_masks(job: str) -> Call[None]:
    """Download a job's masks: a call for `ServiceSession.download`, which stores the body."""
    return Call("GET", f"/v1/jobs/{_segment(job)}/masks", _nothing)


def get_weights(job: str) -> Call[None]:
    """Download a job's updated weights: a call for `ServiceSession.download`, which stores the body."""
    return Call("GET", f"/v1/jobs/{_segment(job)}/weights", _nothing)


def get_events(job: str, last_id: str | None) -> Call[None]:
    """Stream a job's events after event `last_id`, or from the first if None: a call for `ServiceSession.events`."""
    headers = {"accept": "text/event-stream"} | ({} if last_id is None else {"last-event-id": last_id})
    return Call("GET", f"/v1/jobs/{_segment(job)}/events", _nothing, headers=headers)


def check_wire() -> Call[None]:
    """Check that a masksmith service with this wire version answers, before weights or jobs are sent to it."""

    def parse(response: httpx2.Response) -> None:
        document = response.json()
        if not isinstance(document, dict) or not isinstance(document.get("wire_version"), int):
            raise ValueError
        version = document["wire_version"]
        if version != WIRE_VERSION:
            older = "the service" if version < WIRE_VERSION else "this client"
            raise WireError(f"the service has wire version {version}, this client {WIRE_VERSION}: upgrade {older}")

    return Call("GET", "/healthz", parse)


def get_readiness() -> Call[ProblemDocument | None]:
    """Get the service's readiness: None if it is ready, else its problem document."""

    def parse(response: httpx2.Response) -> ProblemDocument | None:
        return None if response.is_success else status_error(response).problem

    return Call("GET", "/readyz", parse, expected=frozenset({503}))


def get_workers() -> Call[list[WorkerInfo]]:
    """List the running workers; empty if the key may not list them."""

    def parse(response: httpx2.Response) -> list[WorkerInfo]:
        if response.status_code == 403:
            return []
        return TypeAdapter(list[WorkerInfo]).validate_python(response.json())

    return Call("GET", "/v1/workers", parse, expected=frozenset({403}))


def get_capabilities(kind: str) -> Call[Any]:
    """Get the service's capabilities of one kind: `patterns`, `solvers` or `kernels`."""
    return Call("GET", f"/v1/{kind}", _json_of(list, dict))


def _segment(text: str) -> str:
    """Return a job's id as one segment of a path.

    The id is quoted, since a slash in it would add a segment. An id that is empty or consists of dots is refused: it
    would change the path even if it were quoted.

    Raises:
        InputError: If the id is refused, or is not Unicode text.
    """
    if not text.strip("."):
        raise InputError(f"{text!r} is not the id of a job; GET /v1/jobs lists them")
    try:
        return quote(text, safe="")
    except UnicodeEncodeError as error:
        raise not_unicode_error(error) from None


def not_unicode_error(error: UnicodeEncodeError) -> InputError:
    """Return the error for a text that no request can hold, such as the name of a file whose bytes are not UTF-8."""
    return InputError(f"{error.object[:200]!a} cannot be sent to a service: it is not Unicode text (UTF-8)")
