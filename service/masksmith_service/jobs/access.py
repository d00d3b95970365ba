"""Authorizes access to jobs (`visible_job_id`, `view_job`), and reads jobs whose ids were authorized (`read_*`).

The response is the same for a job that the principal may not see as for a job that does not exist.
"""

from __future__ import annotations

import re
from typing import Annotated, cast

import anyio.to_thread
from fastapi import Depends, Request, Response

from masksmith_service.auth.principal import Principal, PrincipalDep
from masksmith_service.bounds.middleware import Reservation
from masksmith_service.bounds.table import cost
from masksmith_service.errors import RequestError
from masksmith_service.resources import State, StateDep
from masksmith_state.jobs.model import JobRecord
from masksmith_state.jobs.redis_keys import ID_LENGTH, is_job_id, job_key
from masksmith_state.jobs.snapshots import Snapshot, read_snapshot, read_snapshot_async
from masksmith_state.jobs.unreadable_records import as_unreadable_record_errors
from masksmith_state.telemetry import logs
from masksmith_wire.documents import Job
from masksmith_wire.errors import Code

from .documents import snapshot_view, summary_view

MIN_PREFIX_LENGTH = 4
"""Minimum number of hex digits to which a job's id may be shortened, if no other job's id begins with them."""
MAX_CANDIDATES = 5
"""Maximum number of ids that the error for an ambiguous prefix lists."""
_PREFIX = re.compile(rf"[0-9a-f]{{{MIN_PREFIX_LENGTH},{ID_LENGTH - 1}}}")
MAX_CACHED_COUNTS = 10_000
"""Maximum number of jobs whose owner and number of parts (shards or cases) are cached; such a job is read in one round
trip."""
MAX_PARTS_ON_LOOP = 16
"""The document of a job with up to this many parts is built on the event loop, unless the job is queued; all other
documents are built on a thread."""


def visible_job_id(job: str, state: StateDep, principal: PrincipalDep) -> str:
    """Return the id of a job that the principal is authorized to see; `job` may be a unique prefix of it.

    Raises:
        RequestError: If the principal may see no such job, or several.
    """
    owner = state.records.owner(job) if is_job_id(job) else None
    if owner is None:
        job = _complete_id(job, state, principal)
        owner = state.records.owner(job)
    _check_access(job, owner, principal)
    return job


VisibleJobId = Annotated[str, Depends(visible_job_id)]
"""Id of a job that the principal may see; other requests are answered as if the job did not exist."""


async def reserve_parts(state: State, job: str, reservation: Reservation) -> None:
    """Reserve the memory that reading all parts of a job takes, until the request is answered.

    This is in addition to what the request holds already. Nothing is reserved for a job that does not exist or has at
    most `MAX_PARTS_ON_LOOP` parts.

    Raises:
        RequestError: If other requests have reserved too much.
    """
    _, part_count = await _read_owner_and_part_count(state, job)
    if part_count > MAX_PARTS_ON_LOOP:
        await reservation.add(state.capacities.memory, cost("part") * part_count)


async def _read_owner_and_part_count(state: State, job: str) -> tuple[str | None, int]:
    """Read the owner of a job and its number of parts; None and 0 if the record does not have them."""
    cached = state.capacities.owners_and_part_counts
    if job not in cached:
        with as_unreadable_record_errors(job):
            owner, total = cast("list[str | None]", await state.async_redis.hmget(job_key(job), ["owner", "total"]))
        if owner is None or total is None or not total.isdecimal():
            return owner, 0
        cached[job] = owner, int(total)
        while len(cached) > MAX_CACHED_COUNTS:
            cached.pop(next(iter(cached)))
    return cached[job]


async def _job_with_reserved_parts(job: VisibleJobId, state: StateDep, request: Request) -> str:
    await reserve_parts(state, job, request.state.reservation)
    return job


VisibleJobIdWithParts = Annotated[str, Depends(_job_with_reserved_parts)]
"""Id of a job that the principal may see; memory to read all parts of the job is reserved."""


async def view_job(state: State, job: str, principal: Principal, reservation: Reservation) -> Job:
    """Read a job's document without blocking the event loop; `job` may be a unique prefix of its id.

    Raises:
        RequestError: If the principal may see no such job, or several.
    """
    snapshot = None
    if is_job_id(job):
        snapshot = await _read_visible(state, job, principal, reservation)
    if snapshot is None:
        job = await anyio.to_thread.run_sync(_complete_id, job, state, principal)
        snapshot = await _read_visible(state, job, principal, reservation)
    if snapshot is None:
        raise job_not_found_error(job)
    _check_access(job, snapshot.owner, principal)
    if len(snapshot.parts) <= MAX_PARTS_ON_LOOP and not snapshot.is_queued:
        return snapshot_view(snapshot)
    return await anyio.to_thread.run_sync(_document, state, snapshot)


async def view_changed_job(
    state: State, job: str, principal: Principal, reservation: Reservation, response: Response
) -> Job | Response:
    """Release the memory that a request has reserved, and read the document of the job that it has created or canceled.

    The request has succeeded, so it is not refused if other requests leave too little memory for the document: then the
    response is the job's entry in lists, with the status (202 by default) and the headers of `response`.
    """
    reservation.release()
    try:
        return await view_job(state, job, principal, reservation)
    except RequestError as error:
        if error.code is not Code.OVERLOADED:
            raise
    rows = await anyio.to_thread.run_sync(state.records.summaries, [job])
    summary = summary_view(rows[0]) if rows else None
    if summary is None:
        raise job_not_found_error(job)
    content = summary.model_dump_json(exclude={"key"})
    return Response(content, response.status_code or 202, dict(response.headers), media_type="application/json")


async def _read_visible(state: State, job: str, principal: Principal, reservation: Reservation) -> Snapshot | None:
    """Check the access to a job, then reserve memory for its parts, then read it.

    The access is checked first, so that no response depends on the parts of a job that the principal may not see.

    Raises:
        RequestError: If the principal may not see the job; or if other requests have reserved too much memory.
    """
    owner, _ = await _read_owner_and_part_count(state, job)
    if owner is not None:
        _check_access(job, owner, principal)
    await reserve_parts(state, job, reservation)
    return await read_snapshot_async(state.async_redis, job)


def read_document(state: State, job: str) -> Job:
    """Read a job's document; this blocks, so it is called on a thread.

    Raises:
        RequestError: If there is no such job.
    """
    snapshot = read_snapshot(state.records.redis, job)
    if snapshot is None:
        raise job_not_found_error(job)
    return _document(state, snapshot)


def _document(state: State, snapshot: Snapshot) -> Job:
    """Build a job's document; a queued job's position takes a second round trip."""
    document = snapshot_view(snapshot)
    position = state.records.schedule.position(snapshot.job) if snapshot.is_queued else None
    return document if position is None else document.model_copy(update={"position": position})


def read_masks_job(state: State, job: str) -> JobRecord:
    """Read the record of a masks job.

    Raises:
        RequestError: If there is no such job.
        NoMasksError: If it is a benchmark.
    """
    record = read_job(state, job)
    _ = record.plan  # Raises NoMasksError if it is a benchmark.
    return record


def read_job(state: State, job: str) -> JobRecord:
    """Read a job's record.

    Raises:
        RequestError: If there is no such job.
    """
    record = state.records.read(job)
    if record is None:
        raise job_not_found_error(job)
    return record


def check_ended(record: JobRecord) -> None:
    """Check that a job has ended.

    Raises:
        RequestError: If it has not ended.
    """
    if not record.state.is_terminal:
        detail = f"job {record.id} is {record.state}; wait for it, or follow /v1/jobs/{record.id}/events"
        raise RequestError(Code.JOB_NOT_FINISHED, detail, retry_after_s=1, state=record.state)


def _complete_id(prefix: str, state: State, principal: Principal) -> str:
    """Return the only id with this prefix among the jobs that the principal is authorized to see.

    Raises:
        RequestError: If there is none, or there are several.
    """
    if not _PREFIX.fullmatch(prefix):
        if re.fullmatch("[0-9a-f]+", prefix) and len(prefix) >= MIN_PREFIX_LENGTH:
            raise job_not_found_error(prefix)  # A whole id, or a longer text.
        raise job_not_found_error(prefix, f": ids are hexadecimal, and not shortened below {MIN_PREFIX_LENGTH} digits")
    ids = state.records.find_ids(prefix, principal.visible_owner, MAX_CANDIDATES + 1)
    if not ids:
        raise job_not_found_error(prefix)
    if len(ids) > 1:
        ids_text = ", ".join(ids[:MAX_CANDIDATES]) + ", ..." * (len(ids) > MAX_CANDIDATES)
        detail = f"the ids of several jobs begin with {prefix!r}: {ids_text}; give more digits"
        raise RequestError(Code.AMBIGUOUS_JOB, detail, jobs=ids[:MAX_CANDIDATES])
    return ids[0]


def _check_access(job: str, owner: str | None, principal: Principal) -> None:
    if owner is None or not principal.can_see(owner):
        raise job_not_found_error(job)
    logs.add_fields(job=job)


def job_not_found_error(job: str, reason: str = "") -> RequestError:
    """Return the error for a job that does not exist, or that the principal may not see."""
    return RequestError(Code.JOB_NOT_FOUND, f"there is no job {job[:80]!r}{reason}; GET /v1/jobs lists them")
