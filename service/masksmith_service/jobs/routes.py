"""HTTP routes of jobs: create, list, read, follow, cancel, delete, and download of results."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from typing import Annotated, Any

import anyio.from_thread
import anyio.to_thread
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import Discriminator, Tag

from masksmith_service.auth.principal import Principal, PrincipalDep, is_valid
from masksmith_service.bounds.middleware import Reservation
from masksmith_service.bounds.table import cost
from masksmith_service.errors import RequestError
from masksmith_service.json_route import JsonRoute
from masksmith_service.references.outputs import read_record
from masksmith_service.resources import State, StateDep
from masksmith_service.uploads.receive import receive
from masksmith_state.jobs.model import JobRecord
from masksmith_state.keys import Scope
from masksmith_wire.benchmarks import BenchmarkRequest
from masksmith_wire.documents import Job, JobPage, MasksRequest
from masksmith_wire.errors import Code
from masksmith_wire.selections import SelectedTensors, SelectionRequest

from . import events, options as job_options
from .access import (
    VisibleJobId,
    VisibleJobIdWithParts,
    check_ended,
    job_not_found_error,
    read_masks_job,
    view_changed_job,
    view_job,
)
from .file_tensors import select_from_headers
from .listing import JobQuery, find_jobs, listed_owner
from .pruned_weights import pruned_file
from .repeated_requests import RepeatableRequest
from .results import ResultsFile, masks_file, weights_file
from .submission import JobSubmitter

router = APIRouter(prefix="/v1", tags=["jobs"], route_class=JsonRoute)

IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200)]
RECORD = {"content": {"application/json": {"schema": {"type": "object"}}}}
"""Description of the response of `get_output`, for the OpenAPI document."""
Prefer = Annotated[str | None, Header(max_length=200)]


def _kind(document: Any) -> str:
    """Kind of a job document, parsed or not; by default `masks`."""
    kind = document.get("kind", "masks") if isinstance(document, dict) else getattr(document, "kind", "masks")
    return str(kind)


JobRequest = Annotated[
    Annotated[MasksRequest, Tag("masks")] | Annotated[BenchmarkRequest, Tag("benchmark")], Discriminator(_kind)
]


@router.post("/jobs", status_code=202, response_model=Job)
async def create_job(
    document: JobRequest,
    request: Request,
    response: Response,
    state: StateDep,
    principal: PrincipalDep,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
    require_worker: Annotated[bool, Query(description="Refuse the job if no living worker takes it.")] = False,
) -> Job | Response:
    """Start a job from a document, whose uploads must exist already; the same `Idempotency-Key` gives the same job."""
    principal.require_one_of([Scope.BENCHMARK if isinstance(document, BenchmarkRequest) else Scope.SUBMIT])
    repeatable = RepeatableRequest.of(idempotency_key, document)
    submitter = JobSubmitter(state, principal, repeatable, request.state.reservation, require_worker)
    job = await _create(submitter, partial(submitter.submit_document, document))
    return await _wait_and_view(state, job, principal, prefer, response, request.state.reservation)


@router.post("/masks", status_code=202, response_model=Job)
async def create_masks(
    request: Request,
    response: Response,
    state: StateDep,
    principal: PrincipalDep,
    options: Annotated[job_options.FileOptions, Query()],
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Job | Response:
    """Upload a safetensors file and start a job on its weights, in one call.

    `pattern` may be repeated as `SELECTOR=PATTERN`. `layers` and `exclude` select tensors; by default the layers'
    weights are masked, and not embeddings, output heads, routers, norms, biases and scales. The job's
    `skipped` lists the tensors that are not masked, with reasons.
    """
    # Invalid options are rejected before the body is read.
    specification = job_options.parse_file_options(options)
    description = job_options.describe_file_job(options)
    inspector, _ = await receive(request, state, principal, None)
    await state.count_upload(inspector.bytes)
    assert inspector.header is not None
    repeatable = RepeatableRequest.of(idempotency_key, options, inspector.digest)
    submitter = JobSubmitter(state, principal, repeatable, request.state.reservation, options.require_worker)
    submit = partial(submitter.submit_file, options, specification, description)
    job = await _create(submitter, partial(submit, inspector.digest, inspector.header))
    return await _wait_and_view(state, job, principal, prefer, response, request.state.reservation)


@router.post("/outputs", status_code=202, response_model=Job)
async def create_output(
    request: Request,
    response: Response,
    state: StateDep,
    principal: PrincipalDep,
    options: Annotated[job_options.ModelOptions, Query()],
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Job | Response:
    """Start a job that writes a pruned copy of a model: both are in roots, and nothing is uploaded.

    The options are those of `POST /v1/masks`. The tensors are selected by the same rules, and the model's config is
    taken into account, too.
    """
    specification = job_options.parse_file_options(options)
    description = job_options.describe_file_job(options)
    repeatable = RepeatableRequest.of(idempotency_key, options)
    submitter = JobSubmitter(state, principal, repeatable, request.state.reservation, options.require_worker)
    job = await _create(submitter, partial(submitter.submit_model, options, specification, description))
    return await _wait_and_view(state, job, principal, prefer, response, request.state.reservation)


@router.post("/selection")
async def select_tensors(
    document: SelectionRequest,
    request: Request,
    state: StateDep,
    principal: PrincipalDep,
    options: Annotated[job_options.FileOptions, Query()],
) -> SelectedTensors:
    """Say which tensors `POST /v1/masks` with these options would mask, from the headers of the files alone.

    The errors are those of that request. Nothing is stored, and no job is started.
    """
    size = sum(map(len, document.headers)) + len(document.calibration or "")
    await request.state.reservation.add(state.capacities.memory, cost("header") * size)
    select = partial(select_from_headers, options, document, state.settings)
    async with state.capacities.creations.hold(principal.key, 1):
        return await anyio.to_thread.run_sync(select, limiter=state.creation_threads)


@router.get("/jobs")
def list_jobs(
    state: StateDep,
    principal: PrincipalDep,
    query: Annotated[JobQuery, Query()],
) -> JobPage:
    """List the key's jobs, newest first; for an admin the jobs of all keys, or of one key.

    With a filter, a page may have fewer jobs than `limit`, or none, and still have a `next`: there may be more jobs.
    """
    owner = listed_owner(state.records, principal, query.key)
    return find_jobs(state.records, owner, query.filter, query.after, query.limit)


@router.get("/jobs/{job}")
async def get_job(job: str, request: Request, state: StateDep, principal: PrincipalDep) -> Job:
    """Read a job with its progress, and the results of each tensor or benchmark case."""
    return await view_job(state, job, principal, request.state.reservation)


@router.get("/jobs/{job}/events", response_class=EventSourceResponse)
async def follow_job(
    job: VisibleJobId,
    state: StateDep,
    principal: PrincipalDep,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", pattern=r"^\d{1,16}-\d{1,16}$")] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Follow a job: `state` and `progress` events, ending with a terminal state; resumes after `Last-Event-ID`."""
    is_authorized = partial(is_valid, state.async_redis, principal)
    async for event in events.follow(state.events_redis, job, state.stop_event, is_authorized, last_event_id or "0-0"):
        yield ServerSentEvent(data=event.data, event=event.kind, id=event.id)


@router.get("/jobs/{job}/masks")
def get_masks(
    job: VisibleJobIdWithParts, state: StateDep, format: Annotated[str, Query(pattern="^(bits|bool)$")] = "bits"
) -> Response:
    """Download all masks of an ended job as one safetensors file; tensors without a mask are not in it."""
    return _download(masks_file(_ended_job(job, state), state.records, as_bool=format == "bool"), state)


@router.get("/jobs/{job}/weights")
def get_weights(job: VisibleJobIdWithParts, state: StateDep) -> Response:
    """Download all updated weights of an ended job as one safetensors file; other tensors are not in it."""
    return _download(weights_file(_ended_job(job, state), state.records), state)


@router.get("/jobs/{job}/output", response_class=Response, responses={200: RECORD})
def get_output(job: VisibleJobId, request: Request, state: StateDep, principal: PrincipalDep) -> Response:
    """Read the record of a job's output, `masksmith.json`, once the output is complete."""
    output = read_masks_job(state, job).plan.output
    if output is None:
        raise RequestError(Code.RESULT_NOT_FOUND, f"job {job} has no output; its results: /v1/jobs/{job}/masks")

    def reserve_memory(size: int) -> None:
        anyio.from_thread.run(request.state.reservation.add, state.capacities.memory, size)

    record = read_record(state, principal, output, reserve_memory)
    return Response(record, media_type="application/json")


@router.get("/jobs/{job}/pruned")
def get_pruned(job: VisibleJobIdWithParts, state: StateDep, principal: PrincipalDep) -> Response:
    """Download the masked weights of an ended job as one safetensors file, with zeros in the dropped entries.

    For a job with an update the file has the updated weights. Weights by reference are read from their root, if the key
    may read it.
    """
    record = _ended_job(job, state)
    if record.plan.options.update is not None:
        return _download(weights_file(record, state.records), state)
    file = pruned_file(record, state.records, state.roots, principal)
    file.check(state.store)
    return StreamingResponse(
        file.stream(state.store),
        media_type="application/octet-stream",
        headers=_download_headers("pruned", job, file.size),
    )


@router.post("/jobs/{job}/cancel", response_model=Job)
async def cancel_job(
    job: VisibleJobId, request: Request, response: Response, state: StateDep, principal: PrincipalDep
) -> Job | Response:
    """Cancel a job; canceling a finished one changes nothing."""
    if not await anyio.to_thread.run_sync(state.records.cancel, job):
        raise job_not_found_error(job)
    response.status_code = 200
    return await view_changed_job(state, job, principal, request.state.reservation, response)


@router.delete("/jobs/{job}", status_code=204)
def delete_job(job: VisibleJobId, state: StateDep) -> None:
    """Cancel a job if it is live, and delete it with the results that no other job refers to."""
    if not state.records.delete(job):
        raise job_not_found_error(job)
    state.retention.delete_unreferenced_results()


async def _create(submitter: JobSubmitter, submit: Callable[[], str]) -> str:
    state = submitter.state
    async with state.capacities.creations.hold(submitter.principal.key, 1):
        return await anyio.to_thread.run_sync(submitter.submit_once, submit, limiter=state.creation_threads)


async def _wait_and_view(
    state: State, job: str, principal: Principal, prefer: str | None, response: Response, reservation: Reservation
) -> Job | Response:
    """Wait for the end of a created job as `Prefer` says, set the response's headers and status, and view the job."""
    wait_s = _wait_s(prefer, state.settings.max_wait_s)
    response.headers["Location"] = f"/v1/jobs/{job}"
    if wait_s is not None:
        response.headers["Preference-Applied"] = f"wait={wait_s:g}"
        # The job exists, so the memory for the request's body is released before the wait. If too many requests wait
        # already, this one is answered at once.
        reservation.release()
        with suppress(RequestError):
            await reservation.add(state.capacities.streams, 1)
            if await state.completions.wait(job, wait_s):
                response.status_code = 200
    return await view_changed_job(state, job, principal, reservation, response)


def _wait_s(prefer: str | None, limit_s: float) -> float | None:
    """Return the seconds of `wait` in a `Prefer` header, at most the limit; None without a `wait` of 1 to 9 digits."""
    for part in (prefer or "").split(","):
        name, _, value = part.strip().partition("=")
        if name.lower() == "wait" and value.isdecimal() and len(value) < 10:
            return min(float(value), limit_s)
    return None


def _ended_job(job: str, state: State) -> JobRecord:
    record = read_masks_job(state, job)
    check_ended(record)
    return record


def _download(file: ResultsFile, state: State) -> StreamingResponse:
    file.check(state.store)
    headers = _download_headers(file.content, file.job.id, file.size)
    return StreamingResponse(file.stream(state.store), media_type="application/octet-stream", headers=headers)


def _download_headers(content: str, job: str, size: int) -> dict[str, str]:
    return {
        "Content-Length": str(size),
        "Content-Disposition": f'attachment; filename="{content}-{job}.safetensors"',
    }
