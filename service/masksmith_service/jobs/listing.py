"""Lists of jobs: their query parameters, whose jobs they contain, and the search for the jobs that match."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field

from masksmith_service.auth.principal import Principal
from masksmith_service.errors import RequestError
from masksmith_state.jobs.records import JobRecords
from masksmith_state.keys import Keys
from masksmith_wire.documents import JobPage, JobState, JobSummary
from masksmith_wire.errors import Code
from masksmith_wire.names import MAX_LABELS, MAX_NAME_LENGTH, parse_label_filters
from masksmith_wire.payload_limits import StrictModel

from .documents import summary_view

SCAN_LIMIT = 2000
"""Number of jobs after which the search for one page ends, even if the page is not full."""
BATCH = 200
"""Number of jobs that are read in one round trip if `JobFilter.is_selective`; else this is the page's limit."""


@dataclass(frozen=True)
class JobFilter:
    """Conditions of a list of jobs; an attribute that is empty or None is no condition.

    Attributes:
        name: Text that the job's name contains; case, and spaces around the text, do not matter.
        text: Text that the job's id, name, labels, kind, pattern, solver and state contain when they are joined by
            spaces; case, and spaces around the text, do not matter.
        kind: The job is of this kind, `masks` or `benchmark`.
        states: The job has one of these states.
        labels: The job has all of these labels; the value None stands for any value.
        since, until: The job was created at or between these times.
    """

    name: str = ""
    text: str = ""
    kind: str | None = None
    states: Collection[JobState] = ()
    labels: Mapping[str, str | None] = field(default_factory=dict)
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_selective(self) -> bool:
        """Whether there are conditions other than `since` and `until`."""
        return bool(self.name or self.text or self.kind or self.states or self.labels)

    def matches(self, job: JobSummary) -> bool:
        """Whether a job fulfils all conditions other than `since` and `until`, which `find_jobs` checks."""
        has_labels = all(key in job.labels and value in (None, job.labels[key]) for key, value in self.labels.items())
        has_kind_and_state = self.kind in (None, job.kind) and (not self.states or job.state in self.states)
        has_name = self.name.strip().lower() in (job.name or "").lower()
        has_text = self.text.strip().lower() in _searched_text(job)
        return has_labels and has_kind_and_state and has_name and has_text


def _refuse_number(value: str) -> str:
    try:
        float(value)
    except ValueError:
        return value
    raise ValueError("expected a time with an offset, such as 2026-01-31T12:00:00Z")


def _check_labels(texts: list[str]) -> list[str]:
    parse_label_filters(texts)
    return texts


Time = Annotated[AwareDatetime, BeforeValidator(_refuse_number)]
"""A time with an offset; without the validator, pydantic would read a number as seconds since 1970."""


class JobQuery(StrictModel):
    """The query parameters of a list of jobs: the page, and the conditions."""

    after: Annotated[str | None, Field(max_length=64)] = None
    limit: Annotated[int, Field(ge=1, le=500)] = 50
    name: Annotated[
        str, Field(max_length=MAX_NAME_LENGTH, description="Text that the name contains; case does not matter.")
    ] = ""
    key: Annotated[
        str | None,
        Field(max_length=200, description="Id of the key that the jobs belong to, or its name if no other key has it."),
    ] = None
    kind: Literal["masks", "benchmark"] | None = None
    state: Annotated[list[JobState], Field(default_factory=list, max_length=len(JobState))]
    label: Annotated[
        list[Annotated[str, Field(max_length=200, examples=["team=vision", "team"])]],
        Field(
            default_factory=list,
            max_length=MAX_LABELS,
            description="`KEY=VALUE`, or `KEY` with any value; jobs that have all of them.",
        ),
        AfterValidator(_check_labels),
    ]
    since: Annotated[Time | None, Field(description="Created at this time or later.")] = None
    until: Annotated[Time | None, Field(description="Created at this time or earlier.")] = None

    @property
    def filter(self) -> JobFilter:
        """The conditions, except `key`, which `listed_owner` resolves."""
        return JobFilter(self.name, "", self.kind, self.state, parse_label_filters(self.label), self.since, self.until)


def listed_owner(records: JobRecords, principal: Principal, key: str | None) -> str | None:
    """Return the id of the key whose jobs are to be listed; None for the jobs of all keys.

    Args:
        records: The job records.
        principal: Who sent the request.
        key: Id or name of a key; None for all jobs that the principal may see.

    Raises:
        RequestError: 403 if `key` is not the principal's own, and the principal is no admin; 404 if `key` is neither
            the id of a key, nor the owner of a job, nor the name of exactly one key.
    """
    if key is None:
        return principal.visible_owner
    if principal.key and key == principal.key:
        return principal.key
    if not principal.is_admin:
        if key in principal.names:
            return principal.key
        detail = f"key {principal.name!r} may list its own jobs only; to list those of another key, use an admin's key"
        raise RequestError(Code.FORBIDDEN, detail)
    keys = Keys(records.redis)
    # The owner of a job may be a key that was deleted, or a user of an identity provider.
    if keys.get(key) is not None or (key and records.has_jobs(key)):
        return key
    ids = [info.id for info in keys.all() if info.name == key]
    if len(ids) == 1:
        return ids[0]
    reason = f"the keys {', '.join(ids)} have the name {key!r}: give an id" if ids else f"there is no key {key!r}"
    raise RequestError(Code.KEY_NOT_FOUND, f"{reason}; GET /v1/keys lists them")


def find_jobs(records: JobRecords, owner: str | None, conditions: JobFilter, after: str | None, limit: int) -> JobPage:
    """Find up to `limit` jobs older than job `after`, newest first; None for `after` or `owner` is no condition.

    The search ends when the page is full, no job is left, or `SCAN_LIMIT` jobs are read. If the page has `next`, jobs
    may be left, even if the page is empty: a search with `next` as `after` continues this search. If `next` is None, no
    job is left.
    """
    jobs: list[JobSummary] = []
    batch = BATCH if conditions.is_selective else limit
    scanned = 0
    while scanned < SCAN_LIMIT:
        ids = records.ids_newest_first(after, batch, owner, conditions.until)
        for row in records.summaries(ids):
            job = summary_view(row)
            if job is None:
                continue
            if conditions.since is not None and job.created_at < conditions.since:
                return JobPage(jobs=jobs)
            if conditions.matches(job):
                jobs.append(job)
            if len(jobs) == limit:
                return JobPage(jobs=jobs, next=job.id)
        if len(ids) < batch:
            return JobPage(jobs=jobs)
        after, scanned = ids[-1], scanned + len(ids)
    return JobPage(jobs=jobs, next=after)


def _searched_text(job: JobSummary) -> str:
    labels = " ".join(f"{key}={value}" for key, value in job.labels.items())
    return f"{job.id} {job.name or ''} {labels} {job.kind} {job.pattern} {job.solver} {job.state}".lower()
