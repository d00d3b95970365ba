"""Access to jobs: reads records and documents, with authorization; jobs of other keys appear not to exist."""

from __future__ import annotations

from typing import Annotated

import anyio.to_thread
from fastapi import Depends

from masksmith_service.auth.principal import Principal, PrincipalDep
from masksmith_service.errors import RequestError
from masksmith_service.resources import State, StateDep
from masksmith_state.jobs.model import JobRecord
from masksmith_state.jobs.redis_keys import is_job_id
from masksmith_state.jobs.snapshots import read_snapshot, read_snapshot_async
from masksmith_state.telemetry import logs
from masksmith_wire.documents import Job
from masksmith_wire.errors import Code

from .documents import snapshot_view

MAX_PARTS_ON_LOOP = 16
"""Documents of jobs with up to this many parts are built on the event loop, larger ones on a thread."""


def visible_job(job: str, state: StateDep, principal: PrincipalDep) -> str:
    """Return a job's id if the principal is authorized to see it.

    Raises:
        RequestError: If there is no such job, or it belongs to another key.
    """
    owner = state.records.owner(job) if is_job_id(job) else None
    _check_access(job, owner, principal)
    return job


JobId = Annotated[str, Depends(visible_job)]


async def view_job(state: State, job: str, principal: Principal) -> Job:
    """Read a job's document, on the event loop.

    Raises:
        RequestError: If there is no such job, or it belongs to another key.
    """
    snapshot = await read_snapshot_async(state.events, job) if is_job_id(job) else None
    if snapshot is None:
        raise job_not_found(job)
    _check_access(job, snapshot.owner, principal)
    if len(snapshot.parts) <= MAX_PARTS_ON_LOOP:
        return snapshot_view(snapshot)
    return await anyio.to_thread.run_sync(snapshot_view, snapshot)


def read_document(state: State, job: str) -> Job:
    """Read a job's document, on a thread.

    Raises:
        RequestError: If there is no such job.
    """
    snapshot = read_snapshot(state.records.redis, job)
    if snapshot is None:
        raise job_not_found(job)
    return snapshot_view(snapshot)


def read_masks_job(state: State, job: str) -> JobRecord:
    """Read the record of a masks job.

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
        raise job_not_found(job)
    return record


def check_ended(record: JobRecord) -> None:
    """Raise an error if a job has not ended.

    Raises:
        RequestError: If the job is live.
    """
    if not record.state.is_terminal:
        detail = f"job {record.id} is {record.state}; wait for it, or follow /v1/jobs/{record.id}/events"
        raise RequestError(Code.JOB_NOT_FINISHED, detail, retry_after_s=1, state=record.state)


def _check_access(job: str, owner: str | None, principal: Principal) -> None:
    if owner is None or not principal.can_see(owner):
        raise job_not_found(job)
    logs.add_fields(job=job)


def job_not_found(job: str) -> RequestError:
    """Error of a job that does not exist, or belongs to another key."""
    return RequestError(Code.JOB_NOT_FOUND, f"there is no job {job[:80]!r}; GET /v1/jobs lists them")
