"""Lists as people look at them: searched, filtered, sorted, a page at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from masksmith_service.jobs.documents import summary_view
from masksmith_state.jobs.records import JobRecords
from masksmith_wire.documents import Job, JobPage, JobSummary, TensorReport

PAGE = 50
LAYERS = 200
SCANNED = 2000
AT_ONCE = 200

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
    """Find jobs whose id, kind, pattern, solver hold a text, newest first.

    Of one owner, if one is given. At most `SCANNED` jobs are looked at; `next` goes on from there, even where none was
    found.
    """
    found: list[JobSummary] = []
    scanned = 0
    while scanned < SCANNED:
        rows = records.summaries(after, AT_ONCE, owner)
        for row in rows:
            scanned, after = scanned + 1, str(row["id"])
            job = summary_view(row)
            if _matches(job, text, state):
                found.append(job)
            if len(found) == PAGE:
                return JobPage(jobs=found, next=after)
        if len(rows) < AT_ONCE:
            return JobPage(jobs=found)
    return JobPage(jobs=found, next=after)


def _matches(job: JobSummary, text: str, state: str) -> bool:
    wanted = not job.state.is_terminal if state == "live" else state in ("", job.state)
    words = f"{job.id} {job.kind} {job.pattern} {job.solver} {job.state}".lower()
    return wanted and text.strip().lower() in words


@dataclass(frozen=True)
class Layers:
    """A page of a job's layers, and the whole of them in figures."""

    rows: Sequence[TensorReport]
    found: int
    page: int
    pages: int
    sort: str
    descending: bool


def list_layers(job: Job, text: str, sort: str, page: int, *, descending: bool) -> Layers:
    """Search and sort a job's layers; without a key they stay in the job's order, failed and unknown ones last."""
    rows = [layer for layer in job.tensors if text.strip().lower() in layer.name.lower()]
    if sort == "name":
        rows.sort(key=lambda layer: layer.name, reverse=descending)
    elif sort in _KEYS:
        values = [(_KEYS[sort](layer), layer) for layer in rows]
        known = [(value, layer) for value, layer in values if value is not None]
        known.sort(key=lambda pair: pair[0], reverse=descending)
        rows = [layer for _, layer in known] + [layer for value, layer in values if value is None]
    pages = max(1, -(-len(rows) // LAYERS))
    page = min(page, pages)
    return Layers(rows[(page - 1) * LAYERS : page * LAYERS], len(rows), page, pages, sort, descending)
