"""HTTP routes of benchmarks: the list of kernels, and the report of a benchmark."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from masksmith_service.jobs.access import VisibleJobIdWithParts, check_ended, read_job
from masksmith_service.resources import StateDep
from masksmith_wire.benchmarks import KernelInfo

from .kernels import kernel_infos
from .reports import read_report

router = APIRouter(prefix="/v1", tags=["benchmarks"])
MEDIA_TYPES = {"json": "application/json", "csv": "text/csv; charset=utf-8", "markdown": "text/markdown; charset=utf-8"}


@router.get("/kernels")
def kernels(state: StateDep) -> list[KernelInfo]:
    """List the kernels: what each supports, which live workers have it, and on which of these it runs."""
    return kernel_infos(state.records.bench_workers.live())


@router.get("/jobs/{job}/benchmark")
def get_benchmark(
    job: VisibleJobIdWithParts, state: StateDep, format: Annotated[str, Query(pattern="^(json|csv|markdown)$")] = "json"
) -> Response:
    """Download the report of a benchmark that has ended: measurements, break-even densities, whole-model estimates."""
    record = read_job(state, job)
    report = read_report(record, state.records)
    check_ended(record)
    text = {"json": report.to_json, "csv": report.to_csv, "markdown": report.to_markdown}[format]()
    return Response(text, media_type=MEDIA_TYPES[format])
