"""Runs a solver on panels: in the calling thread, on threads, or on processes, a bounded number at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TypeVar

from masksmith._panels import Panel, PanelAnswer, read_only
from masksmith.solvers.base import Solver
from masksmith.solvers.rotation import Rotation

from .answers import check_answer
from .panel_store import PanelStore, Span
from .process_pool import may_start_processes, process_pool
from .thread_pool import CallerRunsPool

Item = TypeVar("Item")
Result = TypeVar("Result")
WorkItem = tuple[PanelStore, Span]
"""A panel to solve: the store of its tensor, and its tile rows."""


def run(work: Sequence[WorkItem], solver: Solver, threads: int, deadline: float) -> Iterator[WorkItem]:
    """Solve panels and write their answers; yields each item of `work` after its answer is written.

    After the deadline the panels that are not started get an arbitrary allowed mask; panels of a
    tensor with forced entries are still solved.

    Args:
        work: The panels; they are started in this order, and on threads yielded in the order in which they finish.
        solver: Solver, whose `parallelism` decides between threads, processes and neither. If this process may not
            start others, it solves the panels of a solver for processes itself, one by one.
        threads: Number of threads or processes.
        deadline: The deadline, a value of `time.monotonic`.

    Raises:
        ScoresError: If a score is invalid, or the sum of a panel's scores overflows float64.
        InfeasibleError: If forced entries leave a tile without an allowed mask.
        VerificationError: If a solver returns a mask that violates the pattern, or a forced entry, or arrays of other
            dtypes or shapes than `PanelAnswer` has.
    """
    parallelism = solver.parallelism if threads > 1 else "none"
    if parallelism == "none" or (parallelism == "processes" and not may_start_processes()):
        for item in work:
            _solve_here(item, solver, deadline)
            yield item
    elif parallelism == "threads":
        yield from CallerRunsPool(lambda item: _solve_here(item, solver, deadline), work).run(threads)
    else:
        yield from _run_on_processes(work, solver, threads, deadline)


def _solve_here(item: WorkItem, solver: Solver, deadline: float) -> None:
    store, span = item
    loaded_panel = store.read(span)
    started = time.perf_counter()
    answer = None
    if loaded_panel.panel is not None:  # The panel is None if the rows contain only a dense edge.
        with store.problem.locating_errors(span.first):
            panel_solver = _solver_or_rotation(store, solver, deadline)
            answer = panel_solver(read_only(loaded_panel.panel))
        answer = check_answer(answer, loaded_panel.panel, panel_solver)
    store.write(span, loaded_panel, answer, time.perf_counter() - started)


def _run_on_processes(work: Iterable[WorkItem], solver: Solver, processes: int, deadline: float) -> Iterator[WorkItem]:
    def through_pool(pool: Executor, item: WorkItem) -> WorkItem:
        store, span = item
        loaded_panel = store.read(span)
        answer, seconds = None, 0.0
        if loaded_panel.panel is not None:
            with store.problem.locating_errors(span.first):
                # Another process cannot write into the memory of the mask.
                panel = replace(loaded_panel.panel, output=None)
                panel_solver = _solver_or_rotation(store, solver, deadline)
                answer, seconds = pool.submit(_timed, panel_solver, panel).result()
            answer = check_answer(answer, panel, panel_solver)
        store.write(span, loaded_panel, answer, seconds)
        return item

    # One thread more than processes, so that a panel is read while the others are solved.
    with (
        process_pool(processes) as pool,
        ThreadPoolExecutor(processes + 1, thread_name_prefix="masksmith") as threads,
    ):
        yield from map_windowed(threads, partial(through_pool, pool), work, processes + 1)


def _timed(solver: Solver, panel: Panel) -> tuple[PanelAnswer, float]:
    started = time.perf_counter()
    return solver(panel), time.perf_counter() - started


def _solver_or_rotation(store: PanelStore, solver: Solver, deadline: float) -> Solver:
    """Return the solver; after the deadline set `cut_short` and return `Rotation`, which does not search.

    With forced entries, which `Rotation` does not support, the solver is returned after the deadline, too.
    """
    if time.monotonic() < deadline or store.problem.may_force_entries:
        return solver
    store.cut_short = True
    return Rotation()


def map_windowed(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], window: int
) -> Iterator[Result]:
    """Yield the results in the order of the items; at most `window` items are submitted at a time.

    On an error or early exit, the items that are not started are cancelled.
    """
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
