"""Jobs: made from documents or files, looked at, followed, canceled, forgotten."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import anyio.to_thread
import redis
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import Discriminator, Field, Tag

from masksmith.patterns import Pattern
from masksmith_protocol import logs
from masksmith_protocol.benchmarks import BenchmarkPlan, BenchmarkRequest, PlannedCase
from masksmith_protocol.digests import digest_document
from masksmith_protocol.documents import Job, JobPage, MasksOptions, MasksRequest
from masksmith_protocol.errors import Code, RequestError
from masksmith_protocol.jobs import Admission, FullError, JobRecord, MissingUploadError, Plan, ShardReport
from masksmith_protocol.placement import search_queue
from masksmith_protocol.queues import bench_queue
from masksmith_protocol.shards import Shard, cut
from masksmith_protocol.snapshots import read_snapshot, read_snapshot_soon
from masksmith_protocol.updates import parse_update
from masksmith_service import events, planning
from masksmith_service.benchmarks import plan_benchmark
from masksmith_service.callers import Caller, CallerDep, is_valid
from masksmith_service.results import MasksFile
from masksmith_service.state import State, StateDep
from masksmith_service.uploads import receive, too_many_bytes
from masksmith_service.views import snapshot_view, summary_view
from masksmith_service.weights import WeightsFile

log = logging.getLogger(__name__)
router = APIRouter(prefix="/v1", tags=["jobs"])

LONGEST_ID = 64
AT_ONCE = 16
"""Parts of a job whose document is written at once; that of a larger one on a thread, lest other requests wait."""

IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key", max_length=200)]
Prefer = Annotated[str | None, Header(max_length=200)]


def visible_job(job: str, state: StateDep, caller: CallerDep) -> str:
    """Give a job's id back if the caller may see it: another key's job is as good as none.

    Raises:
        RequestError: If there is none, or it is another's.
    """
    owner = state.records.owner(job) if len(job) <= LONGEST_ID else None
    if owner is None or not caller.sees(owner):
        raise _unknown(job)
    logs.note(job=job)
    return job


JobId = Annotated[str, Depends(visible_job)]


def _kind(document: Any) -> str:
    """Masks are what documents ask for that do not say."""
    found = document.get("kind", "masks") if isinstance(document, dict) else getattr(document, "kind", "masks")
    return str(found)


JobRequest = Annotated[
    Annotated[MasksRequest, Tag("masks")] | Annotated[BenchmarkRequest, Tag("benchmark")], Discriminator(_kind)
]


class FileOptions(MasksOptions):
    """Options of a one-shot upload: which of its tensors, and how; `layers` and `exclude` are globs and repeat."""

    layers: Annotated[list[Annotated[str, Field(max_length=512)]], Field(default_factory=list, max_length=1000)]
    exclude: Annotated[list[Annotated[str, Field(max_length=512)]], Field(default_factory=list, max_length=1000)]


@router.post("/jobs", status_code=202)
async def create_job(
    document: JobRequest,
    response: Response,
    state: StateDep,
    caller: CallerDep,
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Job:
    """Start a job from a document whose uploads are here; the same `Idempotency-Key` gives the same job."""

    def create() -> str:
        if isinstance(document, BenchmarkRequest):
            return _submit_benchmark(state, caller, document, key)
        limit, masks_of = state.settings.max_tensors, partial(_masks_of, state, caller)
        plan = planning.plan_request(document, _headers(state, caller), limit, masks_of)
        return _submit(state, caller, plan, planning.parse_pattern(document), key)

    job = await anyio.to_thread.run_sync(create, limiter=state.creating)
    return await _accepted(state, job, caller, prefer, response)


@router.post("/masks", status_code=202)
async def create_masks(
    request: Request,
    response: Response,
    state: StateDep,
    caller: CallerDep,
    options: Annotated[FileOptions, Query()],
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Job:
    """Upload a safetensors file and start a job on its weights, in one call.

    `layers` and `exclude` select; without them every float tensor with two to four dimensions is
    masked and the rest is listed as `skipped`.
    """
    pattern = planning.parse_pattern(options)
    inspector, _ = await receive(request, state, caller, None)
    await state.count_upload(inspector.bytes)
    assert inspector.header is not None
    digest, header = inspector.digest, inspector.header

    def create() -> str:
        headers, masks_of = _headers(state, caller), partial(_masks_of, state, caller)
        plan = planning.plan_file(options, digest, header, options.layers, options.exclude, headers, masks_of)
        return _submit(state, caller, plan, pattern, key)

    job = await anyio.to_thread.run_sync(create, limiter=state.creating)
    return await _accepted(state, job, caller, prefer, response)


@router.get("/jobs")
def list_jobs(
    state: StateDep,
    caller: CallerDep,
    after: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> JobPage:
    """List jobs, newest first: the key's own, or all for an admin."""
    rows = state.records.summaries(after, limit, None if caller.is_admin else caller.key)
    return JobPage(jobs=[summary_view(row) for row in rows], next=str(rows[-1]["id"]) if len(rows) == limit else None)


@router.get("/jobs/{job}")
async def get_job(job: str, state: StateDep, caller: CallerDep) -> Job:
    """Give a job with its progress and what is known about each tensor."""
    return await _view(state, job, caller)


@router.get("/jobs/{job}/events", response_class=EventSourceResponse)
async def follow_job(
    job: JobId,
    state: StateDep,
    caller: CallerDep,
    last: Annotated[str | None, Header(alias="Last-Event-ID", pattern=r"^\d{1,16}-\d{1,16}$")] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Follow a job: `state` and `progress` events, ending with a terminal state; `Last-Event-ID` resumes."""
    async for event in events.follow(
        state.events, job, state.closing, partial(is_valid, state.events, caller), last or "0-0"
    ):
        yield ServerSentEvent(data=event.data, event=event.kind, id=event.id)


@router.get("/jobs/{job}/masks")
def get_masks(job: JobId, state: StateDep, format: Annotated[str, Query(pattern="^(bits|bool)$")] = "bits") -> Response:
    """Download the masks as one safetensors file: of every tensor that has one, once the job is over."""
    record = _ended(job, state)
    file = MasksFile(record, state.records.shards(job), state.records.reports(job), as_bool=format == "bool")
    return _download(file, "masks", job, state)


@router.get("/jobs/{job}/weights")
def get_weights(job: JobId, state: StateDep) -> Response:
    """Download the updated weights as one safetensors file: of every tensor that has them, once the job is over."""
    record = _ended(job, state)
    return _download(WeightsFile(record, state.records.shards(job), state.records.reports(job)), "weights", job, state)


@router.post("/jobs/{job}/cancel")
async def cancel_job(job: JobId, state: StateDep, caller: CallerDep) -> Job:
    """Cancel a job; canceling a finished one changes nothing."""
    if not await anyio.to_thread.run_sync(state.records.cancel, job):
        raise _unknown(job)
    return await _view(state, job, caller)


@router.delete("/jobs/{job}", status_code=204)
def delete_job(job: JobId, state: StateDep) -> None:
    """Cancel a job if it is live, forget it, and delete the results that no other job shares."""
    if not state.records.delete(job):
        raise _unknown(job)
    state.retention.free_results()


def _submit(state: State, caller: Caller, plan: Plan, pattern: Pattern, key: str | None) -> str:
    """Cut a masks job into shards, and start it."""
    options, limits = plan.options, state.settings
    update = None if options.update is None else parse_update(options.update)
    tied = options.budget is None
    shards = cut(
        plan.tensors, pattern, limits.shard_bytes, update, limits.max_shards, spectrum=options.spectrum, tied=tied
    )
    return _start(state, caller, plan, shards, key, search_queue(pattern, options, state.records.workers.present()))


def _submit_benchmark(state: State, caller: Caller, document: BenchmarkRequest, key: str | None) -> str:
    """Make the cases of a benchmark, and start it; masks must be visible to whoever asks."""
    if document.masks_of is not None:
        visible_job(document.masks_of, state, caller)
    planned = plan_benchmark(document, state.records)
    return _start(state, caller, planned.plan, planned.cases, key, bench_queue(document.device))


def _start(
    state: State,
    caller: Caller,
    plan: Plan | BenchmarkPlan,
    parts: Sequence[Shard] | Sequence[PlannedCase],
    key: str | None,
    queue: str,
) -> str:
    """Write the record, then enqueue its parts; the sweeper enqueues what a crash in between leaves out."""
    fingerprint = digest_document(_what(plan, parts)) if key else ""
    try:
        made = state.records.create(plan, parts, key or "", fingerprint, _admission(state, caller), queue)
    except FullError as error:
        raise _full(error, caller) from None
    except MissingUploadError as error:
        raise planning.upload_missing(error.digest) from None
    if made is None:
        detail = f"Idempotency-Key {key!r} came with another request before; use a new one"
        raise RequestError(409, Code.IDEMPOTENCY_CONFLICT, detail)
    job, new = made
    logs.note(job=job)
    if new:
        try:
            state.queue.enqueue_all(job, len(parts), queue)
        except redis.RedisError as error:
            log.warning("job %s is recorded but not enqueued; the sweeper will do it: %s", job, error)
    return job


def _headers(state: State, caller: Caller) -> planning.Headers:
    return planning.Headers(state.store, state.holdings, caller.key, anybodys=caller.is_admin)


def _admission(state: State, caller: Caller) -> Admission:
    return Admission(
        owner=caller.key,
        senders="anybody" if caller.is_admin else "owner",
        most=state.settings.max_live_jobs,
        most_of_owner=caller.quotas.live_jobs,
        most_bytes=caller.quotas.stored_bytes,
    )


def _masks_of(
    state: State, caller: Caller, job: str
) -> tuple[JobRecord, Mapping[int, Shard], Mapping[int, ShardReport]]:
    visible_job(job, state, caller)
    return read_masks_job(state, job), state.records.shards(job), state.records.reports(job)


def _what(plan: Plan | BenchmarkPlan, parts: Sequence[Shard] | Sequence[PlannedCase]) -> dict[str, Any]:
    """Give what makes two requests the same: masks do not depend on how they are cut, benchmarks are their cases."""
    content = plan.model_dump(mode="json")
    return content if isinstance(plan, Plan) else {"plan": content, "cases": [part.model_dump() for part in parts]}


def _full(error: FullError, caller: Caller) -> RequestError:
    if error.what == "bytes":
        return too_many_bytes(caller)
    if error.what == "quota":
        detail = f"key {caller.name!r} has {error.limit} jobs queued or running (live_jobs); wait until some have ended"
        return RequestError(429, Code.TOO_MANY_JOBS, detail, retry_after_s=10, limit=error.limit)
    detail = f"{error.limit} jobs are queued or running (max_live_jobs); try again when some have ended"
    return RequestError(503, Code.TOO_MANY_JOBS, detail, retry_after_s=10, limit=error.limit)


async def _accepted(state: State, job: str, caller: Caller, prefer: str | None, response: Response) -> Job:
    wait_s = _wait_s(prefer, state.settings.max_wait_s)
    response.headers["Location"] = f"/v1/jobs/{job}"
    if wait_s is not None:
        response.headers["Preference-Applied"] = f"wait={wait_s:g}"
        if await state.endings.wait(job, wait_s):
            response.status_code = 200
    return await _view(state, job, caller)


def _wait_s(prefer: str | None, most: float) -> float | None:
    for part in (prefer or "").split(","):
        word, _, value = part.strip().partition("=")
        if word.lower() == "wait" and value.isdecimal() and len(value) < 10:
            return min(float(value), most)
    return None


def _ended(job: str, state: State) -> JobRecord:
    record = read_masks_job(state, job)
    if not record.state.is_terminal:
        detail = f"job {job} is {record.state}; wait for it, or follow /v1/jobs/{job}/events"
        raise RequestError(409, Code.JOB_NOT_FINISHED, detail, retry_after_s=1, state=record.state)
    return record


def _download(file: MasksFile | WeightsFile, what: str, job: str, state: State) -> StreamingResponse:
    file.check(state.store)
    headers = {
        "Content-Length": str(file.size),
        "Content-Disposition": f'attachment; filename="{what}-{job}.safetensors"',
    }
    return StreamingResponse(file.stream(state.store), media_type="application/octet-stream", headers=headers)


async def _view(state: State, job: str, caller: Caller) -> Job:
    found = await read_snapshot_soon(state.events, job) if len(job) <= LONGEST_ID else None
    if found is None or not caller.sees(found.owner):
        raise _unknown(job)
    logs.note(job=job)
    if len(found.parts) <= AT_ONCE:
        return snapshot_view(found)
    return await anyio.to_thread.run_sync(snapshot_view, found)


def read_document(state: State, job: str) -> Job:
    """Read a job's document, on a thread.

    Raises:
        RequestError: If there is no such job.
    """
    found = read_snapshot(state.records.redis, job)
    if found is None:
        raise _unknown(job)
    return snapshot_view(found)


def read_masks_job(state: State, job: str) -> JobRecord:
    """Read the record of a job that finds masks.

    Raises:
        RequestError: If there is no such job, or it is a benchmark.
    """
    record = read_job(state, job)
    _ = record.plan
    return record


def read_job(state: State, job: str) -> JobRecord:
    """Read a job's record.

    Raises:
        RequestError: If there is no such job.
    """
    record = state.records.read(job)
    if record is None:
        raise _unknown(job)
    return record


def _unknown(job: str) -> RequestError:
    return RequestError(404, Code.JOB_NOT_FOUND, f"there is no job {job[:80]!r}; GET /v1/jobs lists them")
