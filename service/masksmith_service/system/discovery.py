"""HTTP routes of discovery (patterns, solvers, workers), health and readiness."""

from __future__ import annotations

import anyio.to_thread
from fastapi import APIRouter
from pydantic import BaseModel

from masksmith_service.auth.principal import AdminDep
from masksmith_service.errors import RequestError
from masksmith_service.resources import State, StateDep
from masksmith_state import DATA_FORMAT
from masksmith_state.blobs.names import upload_name
from masksmith_state.queue import BENCH_QUEUES
from masksmith_wire import WIRE_VERSION
from masksmith_wire.documents import WorkerInfo
from masksmith_wire.errors import Code

router = APIRouter(tags=["discovery"])


class PatternInfo(BaseModel):
    """A family of patterns: its string form, an example, and which masks it allows."""

    form: str
    example: str
    meaning: str


class SolverInfo(BaseModel):
    """A solver: its name in job documents, its method, and what it proves."""

    name: str
    meaning: str
    proves: str


_PATTERNS = [
    ("n:m", "2:4", "n kept of every m consecutive entries along `axis`"),
    ("<=n:m", "<=2:4", "at most n kept of every m"),
    ("transposable n:m", "transposable 8:16", "n kept in every row and every column of every m x m tile"),
    ("transposable <=n:m", "transposable <=8:16", "at most n kept in every row and every column of every m x m tile"),
    (
        "transposable n:m x n_out:m_out",
        "transposable 8:16 x 4:8",
        "tiles of m_out rows by m columns, n kept in each row and n_out in each column",
    ),
    ("double n:m", "double 2:4", "n:m along the rows, then n:m of the remaining entries along the columns"),
    ("v:n:m", "64:2:8", "in each panel of v rows by m columns, all rows use the same 4 columns and keep n of these"),
    (
        "block RxC p% [balance rows|cols|both] [norm l1|l2|max|mean] [nested n:m]",
        "block 32x32 50% balance rows",
        "p percent of the blocks of R rows by C columns kept whole; balanced: equally many in each block row or column",
    ),
    (
        "hybrid RxC n:m p%",
        "hybrid 128x128 2:4 75%",
        "p percent of the blocks of R rows by C columns stay dense, all others obey n:m or transposable n:m",
    ),
    ("channels in|out p%", "channels out 50%", "p percent of the rows (out) or columns (in) kept"),
    ("p%", "10%", "p percent of all entries kept, anywhere"),
]
PATTERNS = [PatternInfo(form=form, example=example, meaning=meaning) for form, example, meaning in _PATTERNS]
SOLVERS = [
    SolverInfo(name="auto", meaning="the best one for the pattern", proves="the optimum"),
    SolverInfo(
        name="exact",
        meaning="dual coordinate ascent, then shortest augmenting paths, tile by tile",
        proves="the optimum",
    ),
    SolverInfo(name="min-cost-flow", meaning="OR-Tools min-cost flow, tile by tile", proves="the optimum"),
    SolverInfo(name="greedy", meaning="largest scores first, then repair", proves="a bound"),
    SolverInfo(name="sinkhorn", meaning="entropic transport with rounding", proves="a bound"),
    SolverInfo(name="enumerate", meaning="all masks of a 4x4 tile", proves="the optimum"),
    SolverInfo(name="top-k", meaning="largest scores of each group (plain n:m)", proves="the optimum"),
]


@router.get("/v1/patterns")
def patterns() -> list[PatternInfo]:
    """List the families of patterns; n always counts the kept entries."""
    return PATTERNS


@router.get("/v1/solvers")
def solvers() -> list[SolverInfo]:
    """List the solvers."""
    return SOLVERS


@router.get("/v1/workers")
def workers(state: StateDep, principal: AdminDep) -> list[WorkerInfo]:
    """List the workers that are alive, for an admin."""
    return state.records.workers.live()


class Health(BaseModel):
    """Response of the liveness check."""

    status: str = "ok"
    wire_version: int = WIRE_VERSION
    data_format: int = DATA_FORMAT


class Readiness(Health):
    """Response of the readiness check."""

    workers: int


@router.get("/healthz")
async def healthz() -> Health:
    """Liveness check: succeeds while the process runs."""
    return Health()


@router.get("/readyz")
async def readyz(state: StateDep) -> Readiness:
    """Readiness check: 200 if broker and store accept writes and a worker that finds masks is alive, else 503.

    A write is tried at most once a second.
    """
    await state.readiness.check()
    return await anyio.to_thread.run_sync(_readiness, state)


def _readiness(state: State) -> Readiness:
    # Raises an error if the store cannot be read; whether this blob exists does not matter.
    state.store.size(upload_name("0" * 64))
    solving_workers = [worker for worker in state.records.workers.live() if not BENCH_QUEUES.issuperset(worker.queues)]
    count = len(solving_workers)
    if count == 0:
        detail = (
            state.records.start_progress.first_line()
            or "no worker that finds masks is alive; start one with `masksmith worker`"
        )
        raise RequestError(Code.NO_WORKER, detail, retry_after_s=2)
    return Readiness(workers=count)
