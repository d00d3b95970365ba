"""Lists of jobs and layers for the pages: search, filter, sorting and pagination."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from masksmith_service.jobs.documents import summary_view
from masksmith_state.jobs.records import JobRecords
from masksmith_wire.documents import Job, JobPage, JobSummary, TensorReport

JOBS_PER_PAGE = 50
LAYERS_PER_PAGE = 200
SCAN_LIMIT = 2000
BATCH = 200

_WORST_FIRST = ("time_limit", "feasible", "optimal", None)
_KEYS: Mapping[str, Callable[[TensorReport], float | None]] = {
    "shape": lambda layer: math.prod(layer.shape),
    "retained": lambda layer: layer.retained,
    "gap": lambda layer: layer.gap,
    "kept": lambda layer: layer.density,
    "status": lambda layer: -1 if layer.error else _WORST_FIRST.index(layer.status),
    "time": lambda layer: layer.solve_s,
}


def find_jobs(records: JobRecords, owner: str | None, text: str, state: str, after: str | None) -> JobPage:
    """Find jobs whose id, kind, pattern, solver or state contains a text, newest first; optionally of one owner.

    At most `SCAN_LIMIT` jobs are read. `next` continues from there, even if no job was found.
    """
    jobs: list[JobSummary] = []
    scanned = 0
    while scanned < SCAN_LIMIT:
        rows = records.summaries(after, BATCH, owner)
        for row in rows:
            scanned, after = scanned + 1, str(row["id"])
            job = summary_view(row)
            if job is not None and _matches(job, text, state):
                jobs.append(job)
            if len(jobs) == JOBS_PER_PAGE:
                return JobPage(jobs=jobs, next=after)
        if len(rows) < BATCH:
            return JobPage(jobs=jobs)
    return JobPage(jobs=jobs, next=after)


def _matches(job: JobSummary, text: str, state: str) -> bool:
    has_state = not job.state.is_terminal if state == "live" else state in ("", job.state)
    searched = f"{job.id} {job.kind} {job.pattern} {job.solver} {job.state}".lower()
    return has_state and text.strip().lower() in searched


@dataclass(frozen=True)
class LayerPage:
    """A page of a job's layers; `total` is the number of layers on all pages."""

    rows: Sequence[TensorReport]
    total: int
    page: int
    pages: int
    sort: str
    descending: bool


def list_layers(job: Job, text: str, sort: str, page: int, *, descending: bool) -> LayerPage:
    """Search and sort a job's layers; without a sort key in the job's order; layers without a value come last."""
    rows = [layer for layer in job.tensors if text.strip().lower() in layer.name.lower()]
    if sort == "name":
        rows.sort(key=lambda layer: layer.name, reverse=descending)
    elif sort in _KEYS:
        values = [(_KEYS[sort](layer), layer) for layer in rows]
        known = [(value, layer) for value, layer in values if value is not None]
        known.sort(key=lambda pair: pair[0], reverse=descending)
        rows = [layer for _, layer in known] + [layer for value, layer in values if value is None]
    pages = max(1, -(-len(rows) // LAYERS_PER_PAGE))
    page = min(page, pages)
    return LayerPage(
        rows[(page - 1) * LAYERS_PER_PAGE : page * LAYERS_PER_PAGE], len(rows), page, pages, sort, descending
    )
