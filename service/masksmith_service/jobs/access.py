"""Jobs as callers may see them: another key's job is as good as none."""

from __future__ import annotations

from typing import Annotated

import anyio.to_thread
from fastapi import Depends

from masksmith_service.auth.principal import Caller, CallerDep
from masksmith_service.errors import RequestError
from masksmith_service.resources import State, StateDep
from masksmith_state.jobs.model import JobRecord
from masksmith_state.jobs.snapshots import read_snapshot, read_snapshot_async
from masksmith_state.telemetry import logs
from masksmith_wire.documents import Job
from masksmith_wire.errors import Code

from .documents import snapshot_view

LONGEST_ID = 64
AT_ONCE = 16
"""Parts of a job whose document is written at once; that of a larger one on a thread, lest other requests wait."""


def visible_job(job: str, state: StateDep, caller: CallerDep) -> str:
    """Give a job's id back if the caller may see it: another key's job is as good as none.

    Raises:
        RequestError: If there is none, or it is another's.
    """
    owner = state.records.owner(job) if len(job) <= LONGEST_ID else None
    _check(job, owner, caller)
    return job


JobId = Annotated[str, Depends(visible_job)]


async def view_job(state: State, job: str, caller: Caller) -> Job:
    """Read a job's document, on the loop.

    Raises:
        RequestError: If there is none, or it is another's.
    """
    found = await read_snapshot_async(state.events, job) if len(job) <= LONGEST_ID else None
    if found is None:
        raise unknown(job)
    _check(job, found.owner, caller)
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
        raise unknown(job)
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
        raise unknown(job)
    return record


def check_ended(record: JobRecord) -> None:
    """Refuse to give the results of a job that is not over.

    Raises:
        RequestError: Then.
    """
    if not record.state.is_terminal:
        detail = f"job {record.id} is {record.state}; wait for it, or follow /v1/jobs/{record.id}/events"
        raise RequestError(Code.JOB_NOT_FINISHED, detail, retry_after_s=1, state=record.state)


def _check(job: str, owner: str | None, caller: Caller) -> None:
    if owner is None or not caller.sees(owner):
        raise unknown(job)
    logs.add_fields(job=job)


def unknown(job: str) -> RequestError:
    """Say that there is no such job."""
    return RequestError(Code.JOB_NOT_FOUND, f"there is no job {job[:80]!r}; GET /v1/jobs lists them")
