"""`solve` and `solve_many`: find the allowed mask that keeps the most score, and bound what any allowed mask keeps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ._arrays import read_array
from ._cores import available_cores
from ._engine import PanelStore, run
from ._errors import ScoresError, SolverError
from ._numbers import is_number, is_whole_number
from ._panels import has_tiles
from ._problem import Options, Problem, check_weight
from ._solution import Solution
from ._solution.matrices import Matrices
from ._solution.pruned import with_pruned_and_packed
from ._tensors import View, are_equal, equality_key, is_row_source, read_tensor
from .cuda.placement import solve_on_device, with_fallback_reason
from .layouts import Layout, LayoutError
from .patterns import NM, Block, Hybrid, Pattern, PatternError
from .patterns.grammar import read_pattern
from .patterns.matching import describe_unknown_names
from .solvers import read_solver
from .solvers.auto import Auto
from .solvers.base import Solver
from .whole_tensor import WholeTensorOptions, whole_tensor_solver

OnProgress = Callable[[int, int], None]


def solve(
    scores: Any,
    pattern: Pattern | str,
    solver: Solver | str | None = None,
    *,
    warm_start: Solution | Any = None,
    must_keep: Any = None,
    must_drop: Any = None,
    hysteresis: float = 0.0,
    time_limit_s: float | None = None,
    threads: int | None = None,
    keep_duals: bool = False,
    on_progress: OnProgress | None = None,
    name: str | None = None,
    view: View = "channels-last",
    weight: Any = None,
    layout: Layout | str | None = None,
) -> Solution:
    """Find the allowed mask that keeps the most score; with an approximate solver it may keep less.

    Maximises `sum(mask * scores)` over the masks of `pattern`. Whatever the solver, its mask is verified, the objective
    is summed again in float64, and an upper bound is computed, for patterns with tiles from the solver's duals.

    Args:
        scores: Importance per weight, finite and non-negative, in the weight's shape: numpy array or torch tensor, or
            an object with `shape`, `dtype` and `rows(first, last)`, whose rows are read when they are solved.
        pattern: Pattern of allowed masks, such as `"transposable 8:16"`.
        solver: Solver, such as `ms.Exact()` or `"exact"`; by default the best one for the pattern.
        warm_start: An earlier `Solution`, whose duals are the initial values of the solver if they fit the tiles; or a
            mask of the same shape, which only `hysteresis` uses.
        must_keep: Bool mask of entries that must be kept.
        must_drop: Bool mask of entries that must be dropped.
        hysteresis: Bonus, in score units, for entries kept in `warm_start`; the proof is for scores with the bonus.
        time_limit_s: Time limit in seconds. After it, panels (groups of tiles) that are not started yet get an
            arbitrary allowed mask; this includes panels of the n:m pattern inside block and hybrid patterns. The search
            for V:N:M patterns ends, too. The limit does not apply to the other work for patterns without tiles, to
            tensors with forced entries, or to a solve on a CUDA device.
        threads: Number of threads or processes, at least 1; by default all cores.
        keep_duals: Whether the solution has duals, for warm starts or an independent check of the proof.
        on_progress: Called with (tiles done, total tiles) after each panel, or after each matrix on a CUDA device; for
            patterns without tiles it counts other parts of the work. An exception in it stops the solve.
        name: Name of the tensor in error messages.
        view: How a convolution `[out, in, kh, kw]` becomes a matrix: `channels-last`, with groups along its input
            channels as hardware requires, or `flat`, `[out, in * kh * kw]` in memory order.
        weight: The weight, of the scores' shape. With it, the solution has the `pruned` weight and the `packed` mask;
            on a CUDA device the certificate kernel writes both.
        layout: How the tensor is made of matrices, if it is neither a matrix `[out, in]` nor a convolution: such as
            `"in out"` for a transposed matrix, or `"stack out in"` for stacked experts, each of which has its own tiles
            and budgets. The pattern's dimensions are those of the matrices.

    Returns:
        The mask with its objective and an upper bound on any mask's objective.

    Raises:
        PatternError: If the pattern or the layout is malformed or does not fit the shape.
        ScoresError: If a score is NaN, infinite or negative; if the sum of the scores exceeds float64; if the tensor is
            empty; if a dtype is not supported; or if a mask or the weight has another shape.
        InfeasibleError: If forced entries leave a tile without an allowed mask.
        SolverError: If an option is invalid, or not supported by the solver or the pattern.
        VerificationError: If the solver's mask violates the pattern, or a forced entry, or its answer is no valid
            `PanelAnswer`.
    """
    _check_hysteresis(hysteresis, has_start=warm_start is not None)
    if weight is not None:
        weight = read_array(weight, lambda reason: ScoresError(f"weight: {reason}", name=name), "real")
    options = Options(must_keep, must_drop, warm_start, hysteresis, keep_duals, weight, view)
    call = _Call.of(solver, time_limit_s, threads, on_progress)
    tensor = _Tensor.of(call, scores, read_pattern(pattern), options, Layout.of(layout), name)
    return with_pruned_and_packed(tensor.solution(_solve_problems(call, [tensor])), weight)


def solve_many(
    scores: Mapping[str, Any],
    pattern: Pattern | str | Mapping[str, Pattern | str],
    solver: Solver | str | None = None,
    *,
    warm_start: Mapping[str, Solution | Any] | None = None,
    hysteresis: float = 0.0,
    time_limit_s: float | None = None,
    threads: int | None = None,
    keep_duals: bool = False,
    on_progress: OnProgress | None = None,
    view: View = "channels-last",
    layout: Mapping[str, Layout | str] | None = None,
) -> dict[str, Solution]:
    """Solve many tensors; the tiles of all tensors on the CPU are solved in parallel.

    Tensors with equal scores, pattern and layout and the same warm start, such as tied weights, are solved once and
    share the solution: a change of its mask in place changes it for all of them.

    Args:
        scores: Tensors by name.
        pattern: One pattern for all tensors, or a pattern for each name, as `allocate` returns.
        solver: Solver; by default the best one for each pattern.
        warm_start: Earlier solutions or masks by name; may lack names.
        hysteresis: Bonus, in score units, for entries kept in the warm starts; at least one tensor must have one.
        time_limit_s: Seconds for all tensors together, as in `solve`.
        threads: Number of threads or processes, at least 1; by default all cores.
        keep_duals: Whether the solutions have duals.
        on_progress: As in `solve`; the total is that of all tensors with tiles.
        view: How convolutions become matrices, as in `solve`.
        layout: How tensors are made of matrices, by name, as in `solve`.

    Returns:
        The solutions by name.

    Raises:
        MasksmithError: As `solve`, for the first invalid tensor, which the message names; or if `pattern`, `warm_start`
            or `layout` has a name without scores, or `pattern` lacks one with scores.
    """
    if not hasattr(scores, "items"):
        raise ScoresError(f"a {type(scores).__name__} is not a mapping of names to tensors; solve takes one tensor")
    scores = {name: read_tensor(tensor, name) for name, tensor in scores.items()}
    starts, patterns = warm_start or {}, _patterns(scores, pattern)
    _refuse_unknown(scores, starts, SolverError, "a warm_start is")
    _refuse_unknown(scores, layout or {}, LayoutError, "a layout is")
    _check_hysteresis(hysteresis, has_start=any(starts.get(name) is not None for name in scores))
    layouts = {name: Layout.of((layout or {}).get(name)) for name in scores}
    first_names = _first_names(scores, patterns, starts, layouts)
    call = _Call.of(solver, time_limit_s, threads, on_progress)
    shared_options = Options(view=view, keep_duals=keep_duals)
    tensors: dict[str, _Tensor] = {}
    for name in dict.fromkeys(first_names.values()):
        options = replace(shared_options, warm_start=starts.get(name), hysteresis=hysteresis)
        tensors[name] = _Tensor.of(call, scores[name], patterns[name], options, layouts[name], name)
    solved = _solve_problems(call, list(tensors.values()))
    solutions = {name: tensor.solution(solved) for name, tensor in tensors.items()}
    return {name: solutions[first_names[name]] for name in scores}


@dataclass(frozen=True)
class _Tensor:
    """A tensor and its problems: one, or one for each of its matrices."""

    problems: list[Problem]
    matrices: Matrices | None
    name: str | None

    @classmethod
    def of(
        cls, call: _Call, scores: Any, pattern: Pattern, options: Options, layout: Layout | None, name: str | None
    ) -> _Tensor:
        """Make the problems of a tensor: each matrix with its part of the forced entries and of the warm start."""
        scores = read_tensor(scores, name)
        if layout is None or layout.is_plain(pattern, scores.shape):
            return cls([call.problem(scores, pattern, options, name)], None, name)
        if is_row_source(scores):
            raise ScoresError(f"scores that are read by rows are one matrix [out, in], not {str(layout)!r}", name=name)
        matrices = Matrices(layout, pattern, tuple(int(length) for length in scores.shape))
        check_weight(options.weight, matrices.shape, name)
        parts = matrices.split(scores)
        values_by_option = {key: _split_option(matrices, key, getattr(options, key)) for key in SPLIT_OPTIONS}
        problems = []
        for number, part in enumerate(parts):
            matrix_options: dict[str, Any] = {
                key: None if values is None else values[number] for key, values in values_by_option.items()
            }
            label = f"{name or 'scores'} (matrix {number} as [out, in])"
            # The weight is multiplied by the joined mask, after the solve.
            problems.append(call.problem(part, pattern, replace(options, weight=None, **matrix_options), label))
        return cls(problems, matrices, name)

    def solution(self, solved: Iterator[Solution]) -> Solution:
        """Take the next solutions, one for each problem of this tensor, and join them."""
        solutions = [next(solved) for _ in self.problems]
        solution = solutions[0] if self.matrices is None else self.matrices.join(solutions, self.name)
        return replace(solution, _is_flat=True) if self.problems[0].options.view == "flat" else solution

    def locate(self, error: ScoresError) -> ScoresError | None:
        """Return an error in a matrix of this tensor with the tensor's name and index; None for other errors."""
        if self.matrices is None or error.index is None:
            return None
        for number, problem in enumerate(self.problems):
            if problem.name == error.name:
                index = self.matrices.tensor_index(number, error.index)
                return ScoresError(error.reason, index, self.name, error.hint)
        return None


def _solve_problems(call: _Call, tensors: Sequence[_Tensor]) -> Iterator[Solution]:
    """Return the solutions of the tensors' problems; an error about an entry has its index in the tensor."""
    try:
        return iter(call.solve([problem for tensor in tensors for problem in tensor.problems]))
    except ScoresError as error:
        raise next(filter(None, (tensor.locate(error) for tensor in tensors)), error) from None


SPLIT_OPTIONS = ("must_keep", "must_drop", "warm_start")
"""Options with one value for each matrix of a tensor."""


def _split_option(matrices: Matrices, key: str, value: Any) -> list[Any] | None:
    """Split a mask or an earlier solution into one part for each matrix of its tensor; None stays None."""
    if value is None:
        return None
    mask = value.mask if isinstance(value, Solution) else read_tensor(value, key)
    if tuple(mask.shape) != matrices.shape:
        raise ScoresError(f"shape {list(mask.shape)} differs from the scores' {list(matrices.shape)}", name=key)
    return list(matrices.split_solution(value) if isinstance(value, Solution) else matrices.split(mask))


@dataclass(frozen=True)
class _Call:
    """One call of `solve` or `solve_many`: solver, deadline (of `time.monotonic`), threads and progress callback."""

    solver: Solver
    deadline: float
    threads: int
    on_progress: OnProgress | None

    @classmethod
    def of(
        cls, solver: Solver | str | None, limit_s: float | None, threads: int | None, on_progress: OnProgress | None
    ) -> _Call:
        """Resolve defaults; the time limit starts now.

        Raises:
            SolverError: If the time limit is no number, `threads` is no whole number of at least 1, or the solver is
                unknown.
        """
        if limit_s is not None and not is_number(limit_s):
            raise SolverError(f"time_limit_s={limit_s!r} is not a number of seconds")
        if threads is not None and not is_whole_number(threads):
            raise SolverError(f"threads={threads!r} is not a whole number")
        if threads is not None and threads < 1:
            raise SolverError(f"threads={threads} must be at least 1")
        solver = Auto() if solver is None else read_solver(solver)
        deadline = math.inf if limit_s is None else time.monotonic() + limit_s
        return cls(solver, deadline, threads or available_cores(), on_progress)

    def problem(self, scores: Any, pattern: Pattern, options: Options, name: str | None) -> Problem:
        """Return the problem of one tensor or matrix, after checking that the solver supports it."""
        if not has_tiles(pattern):
            # Called only for the errors that it raises.
            whole_tensor_solver(pattern, self.solver)
        problem = Problem(scores, pattern, options, name)
        if problem.has_tiles:
            refusal = self._solver_of(problem).refusal(problem.tile, forced=problem.may_force_entries)
            if refusal is not None:
                raise SolverError(refusal)
        return problem

    def solve(self, problems: Sequence[Problem]) -> list[Solution]:
        """Solve problems with tiles in parallel, then those without tiles one by one; return the solutions in order."""
        tile_solutions = iter(self._solve_tiles([problem for problem in problems if problem.has_tiles]))
        return [next(tile_solutions) if problem.has_tiles else self._solve_whole(problem) for problem in problems]

    def _solve_tiles(self, problems: Sequence[Problem]) -> list[Solution]:
        """Solve first the problems that `solve_on_device` takes, then the others by panels, one solver at a time."""
        solvers = [self._solver_of(problem) for problem in problems]
        done, total = 0, sum(problem.down * problem.across for problem in problems)
        solutions: dict[int, Solution] = {}
        # Why a problem was not solved on a CUDA device; None if it was not meant for one.
        fallback_reasons: dict[int, str | None] = {}
        for k, (problem, solver) in enumerate(zip(problems, solvers, strict=True)):
            solution_or_reason = solve_on_device(problem, solver)
            if isinstance(solution_or_reason, Solution):
                solutions[k] = solution_or_reason
                done += problem.down * problem.across
                self._report(done, total)
            else:
                fallback_reasons[k] = solution_or_reason
        stores = {k: PanelStore(problems[k]) for k in fallback_reasons}
        for solver in dict.fromkeys(solvers[k] for k in stores):
            work = [(store, span) for k, store in stores.items() if solvers[k] == solver for span in store.spans()]
            for store, span in run(work, solver, min(len(work), self.threads), self.deadline):
                done += store.tile_count(span)
                self._report(done, total)
        for k, store in stores.items():
            solutions[k] = with_fallback_reason(store.solution(solvers[k], self.threads), fallback_reasons[k])
        return [solutions[k] for k in range(len(problems))]

    def _solve_whole(self, problem: Problem) -> Solution:
        """Solve a tensor whose budget belongs to the whole tensor; the progress of each such tensor starts at 0."""
        pattern, nested_solution = problem.pattern, None
        nested_pattern = _nested_pattern(pattern)
        if nested_pattern is not None:
            inner = Problem(problem.scores, nested_pattern, Options(view=problem.options.view), problem.name)
            (nested_solution,) = replace(self, solver=Auto(), on_progress=None).solve([inner])
        solve_whole_tensor = whole_tensor_solver(pattern, self.solver)
        return solve_whole_tensor(
            problem, pattern, WholeTensorOptions(self.deadline, self.threads, nested_solution, self.on_progress)
        )

    def _report(self, done: int, total: int) -> None:
        if self.on_progress is not None:
            self.on_progress(done, total)

    def _solver_of(self, problem: Problem) -> Solver:
        """Return the solver for a problem with tiles; `Auto` chooses it by the pattern."""
        if isinstance(self.solver, Auto) and has_tiles(problem.pattern):
            return self.solver.select(problem.pattern).solver
        return self.solver


def _nested_pattern(pattern: Pattern) -> NM | None:
    """Return the n:m pattern inside the blocks of a pattern, which is solved first; None if there is none."""
    if isinstance(pattern, Hybrid):
        return pattern.inner
    return pattern.nested if isinstance(pattern, Block) else None


def _patterns(scores: Mapping[str, Any], pattern: Pattern | str | Mapping[str, Pattern | str]) -> dict[str, Pattern]:
    if not isinstance(pattern, Mapping):
        return dict.fromkeys(scores, read_pattern(pattern))
    missing = [name for name in scores if name not in pattern]
    if missing:
        raise PatternError(f"there is no pattern for {missing[0]!r}")
    _refuse_unknown(scores, pattern, PatternError, "a pattern is")
    return {name: read_pattern(pattern[name]) for name in scores}


def _refuse_unknown(
    scores: Mapping[str, Any], names: Iterable[str], error_type: Callable[[str], Exception], subject: str
) -> None:
    """Raise `error_type` if a name has no scores; its message begins with `subject`, such as "a layout is"."""
    unknown = describe_unknown_names(names, scores.keys())
    if unknown is not None:
        raise error_type(f"{subject} given for tensors without scores: {unknown}")


def _first_names(
    scores: Mapping[str, Any],
    patterns: Mapping[str, Pattern],
    starts: Mapping[str, Any],
    layouts: Mapping[str, Layout | None],
) -> dict[str, str]:
    """Map each name to the first name with equal scores, pattern and layout and the same warm start (by identity)."""
    candidates: dict[Any, list[str]] = {}
    first_names: dict[str, str] = {}
    for name, tensor in scores.items():
        names = candidates.setdefault((equality_key(tensor), patterns[name], id(starts.get(name)), layouts[name]), [])
        first_names[name] = next((first for first in names if are_equal(scores[first], tensor)), name)
        if first_names[name] == name:
            names.append(name)
    return first_names


def _check_hysteresis(hysteresis: float, *, has_start: bool) -> None:
    if not (is_number(hysteresis) and hysteresis >= 0 and math.isfinite(hysteresis)):
        raise SolverError(f"hysteresis={hysteresis!r} must be finite and at least 0")
    if hysteresis > 0 and not has_start:
        raise SolverError("hysteresis requires a warm_start")
