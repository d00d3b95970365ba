"""What this installation can do, and whether it can do it now."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from masksmith_service.auth.principal import AdminDep
from masksmith_service.errors import RequestError
from masksmith_service.resources import StateDep
from masksmith_state import DATA_FORMAT
from masksmith_state.blobs.store import upload_name
from masksmith_state.queue import BENCH_QUEUES
from masksmith_wire import WIRE_VERSION
from masksmith_wire.documents import WorkerInfo
from masksmith_wire.errors import Code

router = APIRouter(tags=["discovery"])


class PatternInfo(BaseModel):
    """A family of patterns and how it is written."""

    form: str
    example: str
    meaning: str


class SolverInfo(BaseModel):
    """A solver by its name on the wire."""

    name: str
    meaning: str
    proves: str


PATTERNS = [
    PatternInfo(form="n:m", example="2:4", meaning="n kept of every m consecutive entries along `axis`"),
    PatternInfo(form="<=n:m", example="<=2:4", meaning="at most n kept of every m"),
    PatternInfo(
        form="transposable n:m",
        example="transposable 8:16",
        meaning="n kept in every row and every column of every m x m tile",
    ),
    PatternInfo(form="transposable <=n:m", example="transposable <=8:16", meaning="likewise, at most n"),
    PatternInfo(
        form="transposable n:m x n_out:m_out",
        example="transposable 8:16 x 4:8",
        meaning="tiles of m_out rows by m columns, n kept in each row and n_out in each column (in x out)",
    ),
    PatternInfo(
        form="double n:m",
        example="double 2:4",
        meaning="n:m along the rows, then n:m of what is left along the columns",
    ),
    PatternInfo(
        form="v:n:m",
        example="64:2:8",
        meaning="panels of v rows by m columns share 4 columns, n of those kept in each row",
    ),
    PatternInfo(
        form="block RxC p% [balance rows|cols|both] [norm l1|l2|max|mean] [nested n:m]",
        example="block 32x32 50% balance rows",
        meaning="p percent of the blocks of R rows by C columns kept whole, as many in every block row or column",
    ),
    PatternInfo(
        form="channels in|out p%",
        example="channels out 50%",
        meaning="p percent of the rows (out) or columns (in) kept",
    ),
    PatternInfo(form="p%", example="10%", meaning="p percent of all entries kept, anywhere"),
]
SOLVERS = [
    SolverInfo(name="auto", meaning="the best one for the pattern", proves="the optimum"),
    SolverInfo(name="exact", meaning="dual sweeps, repair and polish, tile by tile", proves="the optimum"),
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
def workers(state: StateDep, caller: AdminDep) -> list[WorkerInfo]:
    """List the workers that are alive, for an admin."""
    return state.records.workers.present()


class Health(BaseModel):
    """The service is up."""

    status: str = "ok"
    wire_version: int = WIRE_VERSION
    data_format: int = DATA_FORMAT


class Readiness(Health):
    """The service can do its work."""

    workers: int


@router.get("/healthz")
async def healthz() -> Health:
    """Answer as long as the process lives."""
    return Health()


@router.get("/readyz")
def readyz(state: StateDep) -> Readiness:
    """Answer 200 once broker, store and at least one worker are there, else 503 saying what is missing."""
    state.store.size(upload_name("0" * 64))
    searching = [worker for worker in state.records.workers.present() if not BENCH_QUEUES.issuperset(worker.queues)]
    count = len(searching)
    if count == 0:
        detail = "no worker is alive; start one with `masksmith worker`"
        raise RequestError(Code.NO_WORKER, detail, retry_after_s=2)
    return Readiness(workers=count)
