"""The one verb: find the allowed mask that keeps the most score, and prove it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ._engine.streaming import available_cores, run
from ._errors import SolverError
from ._flat import View, check_view, flat, moved, shaped, solve_flat
from ._layer import Extras, Layer, Span
from ._pruned import carry, check_weight
from ._solution import Solution, Status
from ._tensors import Source, are_equal, like, sample
from .cuda.placement import note, solve_on_device
from .patterns import Block, Pattern, PatternError, TilePattern, parse
from .solvers import by_name
from .solvers.auto import Auto
from .solvers.base import Solver
from .whole_tensor import Ask, plan_for

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
) -> Solution:
    """Find the allowed mask that keeps the most score.

    Maximises `sum(mask * scores)` over the masks of `pattern`. Every solution is verified, its objective summed anew in
    float64, and bounded by duals, whichever solver made it.

    Args:
        scores: Importance per weight, finite and non-negative, in the weight's shape: numpy array or torch tensor.
        pattern: What is allowed, such as `"transposable 8:16"`.
        solver: How, such as `ms.Exact()` or `"exact"`; the best one for pattern and size unless given.
        warm_start: An earlier `Solution`, whose duals, if kept, save time, or a mask of the same shape (for
            `hysteresis`).
        must_keep: Bool mask of entries that must be kept.
        must_drop: Bool mask of entries that must be dropped.
        hysteresis: Bonus, in score units, for entries of `warm_start`; the proof is for the shifted scores.
        time_limit_s: Seconds after which tiles not yet solved get any allowed mask.
        threads: Tiles solved side by side; all cores unless given.
        keep_duals: Whether the solution carries its duals, for warm starts or a check of the proof elsewhere.
        on_progress: Called with (tiles done, tiles in all) after each panel; what it raises stops the solve.
        name: What messages call the tensor.
        view: How a convolution `[out, in, kh, kw]` becomes a matrix: `channels-last`, with groups along its input
            channels as hardware wants them, or `flat`, `[out, in * kh * kw]` in the order of its bytes.
        weight: The weight itself, of the scores' shape: the solution then carries it `pruned`, and the mask `packed`;
            on a CUDA device both are written while the mask is proved.

    Returns:
        The mask with its objective and an upper bound on any mask's objective.

    Raises:
        PatternError: If the pattern is malformed or does not fit the shape.
        ScoresError: If a score is NaN, infinite or negative, or the tensor is empty.
        InfeasibleError: If forced entries leave a tile without an allowed mask.
        SolverError: If the solver cannot do what is asked of it.
    """
    check_view(view)
    check_weight(weight, scores, name)
    if view == "flat" and len(scores.shape) > 2:
        options = {"pattern": pattern, "solver": solver, "warm_start": warm_start, "must_keep": must_keep}
        options |= {"must_drop": must_drop, "hysteresis": hysteresis, "time_limit_s": time_limit_s, "threads": threads}
        options |= {"keep_duals": keep_duals, "on_progress": on_progress, "name": name}
        return carry(solve_flat(solve, scores, options), weight)
    extras = Extras(must_keep, must_drop, warm_start, _checked(hysteresis, warm_start), keep_duals, weight)
    pace = _Pace(time_limit_s, threads, on_progress)
    return carry(_solve_one(scores, _pattern(pattern), _solver(solver), extras, pace, name), weight)


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
) -> dict[str, Solution]:
    """Solve many tensors, the tiles of all of them side by side.

    A tensor that comes under several names, as tied weights do, is solved once; all its names get the one solution.

    Args:
        scores: Tensors by name.
        pattern: What is allowed in each; or a pattern for each name, as `allocate` gives.
        solver: How; the best one for pattern and size unless given.
        warm_start: Earlier solutions or masks by name; tensors without one start afresh.
        hysteresis: Bonus, in score units, for entries of the warm starts.
        time_limit_s: Seconds, for all tensors together, after which tiles not yet solved get any allowed mask.
        threads: Tiles solved side by side; all cores unless given.
        keep_duals: Whether the solutions carry their duals.
        on_progress: Called with (tiles done, tiles in all) after each panel; what it raises stops the solve.
        view: How convolutions become matrices, as in `solve`.

    Raises:
        MasksmithError: As `solve` does, at the first tensor that is at fault, naming it.
    """
    check_view(view)
    if view == "flat":
        begun = {name: moved(start) for name, start in (warm_start or {}).items()}
        matrices = {name: flat(tensor) for name, tensor in scores.items()}
        solved = solve_many(
            matrices, pattern, solver, warm_start=begun or None, hysteresis=hysteresis, time_limit_s=time_limit_s,
            threads=threads, keep_duals=keep_duals, on_progress=on_progress,
        )  # fmt: skip
        return {name: shaped(solution, scores[name]) for name, solution in solved.items()}
    chosen, starts, pace = _solver(solver), warm_start or {}, _Pace(time_limit_s, threads, on_progress)
    rules = _rules(scores, pattern)
    first = _first_names(scores, rules, starts)
    layers: dict[str, Layer] = {}
    found: dict[str, Solution] = {}
    reasons: dict[str, str | None] = {}
    whole: dict[Pattern, dict[str, Any]] = {}
    for name, rule in rules.items():
        if first[name] != name:
            continue
        if not isinstance(rule, TilePattern):
            whole.setdefault(rule, {})[name] = scores[name]
            continue
        asked = Extras(None, None, starts.get(name), _checked(hysteresis, starts.get(name, ())), keep_duals)
        placed = solve_on_device(scores[name], rule, _for(chosen, rule), asked, name)
        if isinstance(placed, Solution):
            found[name] = placed
        else:
            layers[name], reasons[name] = Layer(scores[name], rule, asked, name), placed
    tiled = _solve_tiles(layers, chosen, pace)
    found |= {name: note(solution, reasons[name]) for name, solution in tiled.items()}
    extras = Extras(None, None, warm_start, _checked(hysteresis, starts), keep_duals)
    for rule, tensors in whole.items():
        found |= _solve_whole(tensors, rule, chosen, extras, pace)
    return {name: found[first[name]] for name in scores}


@dataclass(frozen=True)
class _Pace:
    """How long and on how many cores a call may solve, and who hears how far it is."""

    limit_s: float | None
    threads: int | None
    on_progress: OnProgress | None

    @property
    def cores(self) -> int:
        return self.threads or available_cores()

    def deadline(self) -> float:
        """When it ends, if the call begins now."""
        return math.inf if self.limit_s is None else time.monotonic() + self.limit_s

    def tell(self, done: int, total: int) -> None:
        if self.on_progress is not None:
            self.on_progress(done, total)


def _solve_one(
    scores: Any, pattern: Pattern, solver: Solver, extras: Extras, pace: _Pace, name: str | None
) -> Solution:
    if not isinstance(pattern, TilePattern):
        return _solve_whole({name or "": scores}, pattern, solver, extras, pace)[name or ""]
    chosen = _for(solver, pattern)
    placed = solve_on_device(scores, pattern, chosen, extras, name)
    if isinstance(placed, Solution):
        pace.tell(placed.tile_objectives.size, placed.tile_objectives.size)
        return placed
    layer = Layer(scores, pattern, extras, name)
    _run([layer], chosen, pace, pace.deadline())
    return note(_conclude(layer, chosen, pace.cores), placed)


def _rules(scores: Mapping[str, Any], pattern: Pattern | str | Mapping[str, Pattern | str]) -> dict[str, Pattern]:
    if not isinstance(pattern, Mapping):
        return dict.fromkeys(scores, _pattern(pattern))
    missing = [name for name in scores if name not in pattern]
    if missing:
        raise PatternError(f"there is no pattern for {missing[0]!r}")
    return {name: _pattern(pattern[name]) for name in scores}


def _first_names(scores: Mapping[str, Any], rules: Mapping[str, Pattern], starts: Mapping[str, Any]) -> dict[str, str]:
    """Name for each tensor the first one with the same scores, pattern and start."""
    firsts: dict[Any, list[str]] = {}
    found: dict[str, str] = {}
    for name, tensor in scores.items():
        alike = firsts.setdefault((sample(tensor), rules[name], id(starts.get(name))), [])
        found[name] = next((first for first in alike if are_equal(scores[first], tensor)), name)
        if found[name] == name:
            alike.append(name)
    return found


def _solve_tiles(layers: dict[str, Layer], solver: Solver, pace: _Pace) -> dict[str, Solution]:
    """Solve layers of tiles; `auto` chooses by the pattern, so layers of a kind go together."""
    chosen = {name: _for(solver, layer.pattern) for name, layer in layers.items()}
    deadline = pace.deadline()
    for each in dict.fromkeys(chosen.values()):
        _run([layer for name, layer in layers.items() if chosen[name] == each], each, pace, deadline)
    return {name: _conclude(layer, chosen[name], pace.cores) for name, layer in layers.items()}


def _solve_whole(
    scores: Mapping[str, Any],
    pattern: Pattern,
    solver: Solver,
    extras: Extras,
    pace: _Pace,
) -> dict[str, Solution]:
    """Solve tensors that are one problem each, one after the other; progress starts anew with every tensor."""
    asked = {
        "must_keep": extras.must_keep,
        "must_drop": extras.must_drop,
        "warm_start": extras.warm_start,
        "keep_duals": extras.keep_duals or None,
    }
    plan = plan_for(pattern, solver, [option for option, value in asked.items() if value is not None])
    deadline, solutions = pace.deadline(), {}
    for name, tensor in scores.items():
        nested = None
        if isinstance(pattern, Block) and pattern.nested is not None:
            pattern.grid(Source(tensor, "in", name or None).shape)
            nested = _solve_one(tensor, pattern.nested, Auto(), Extras(), replace(pace, on_progress=None), name or None)
        solutions[name] = plan(tensor, pattern, Ask(name or None, deadline, pace.cores, nested, pace.on_progress))
    return solutions


def _run(layers: list[Layer], solver: Solver, pace: _Pace, deadline: float) -> None:
    for layer in layers:
        refusal = solver.refusal(layer.tile, forced=layer.has_forced)
        if refusal is not None:
            raise SolverError(refusal)
    total = sum(layer.down * layer.across for layer in layers)
    work = [(layer, span) for layer in layers for span in layer.spans()]
    done = 0
    for layer, span in run(work, solver, min(len(work), pace.cores), deadline):
        done += _tiles(layer, span)
        pace.tell(done, total)


def _tiles(layer: Layer, span: Span) -> int:
    return max(0, min(span.last, layer.down) - span.first) * layer.across


def _conclude(layer: Layer, solver: Solver, cores: int) -> Solution:
    tally = layer.total()
    objective = float(layer.objectives.sum()) + tally.edge_score
    violation = float(layer.violations.sum())
    proved = violation == 0.0
    return Solution(
        mask=like(layer.sink.mask, layer.scores),
        pattern=layer.pattern,
        objective=objective,
        upper_bound=objective if proved else float(np.nextafter(objective + violation, math.inf)),
        status=Status.OPTIMAL if proved else Status.TIME_LIMIT if layer.cut_short else Status.FEASIBLE,
        tile_objectives=layer.objectives,
        tile_bounds=layer.objectives if proved else layer.objectives + layer.violations,
        total_score=tally.total,
        kept=tally.kept,
        unshifted_objective=tally.kept_score if layer.extras.hysteresis else objective,
        stats={
            "solver": solver.name,
            "tiles": layer.objectives.size,
            "optimal_tiles": layer.objectives.size - (0 if proved else int(np.count_nonzero(layer.violations))),
            "solve_s": layer.solve_s,
            "threads": cores,
            "device": getattr(solver, "device", None) or "cpu",
        },
        duals=layer.duals,
    )


def _pattern(pattern: Pattern | str) -> Pattern:
    return parse(pattern) if isinstance(pattern, str) else pattern


def _solver(solver: Solver | str | None) -> Solver:
    if solver is None:
        return Auto()
    return by_name(solver) if isinstance(solver, str) else solver


def _for(solver: Solver, pattern: TilePattern) -> Solver:
    return solver.select(pattern).solver if isinstance(solver, Auto) else solver


def _checked(hysteresis: float, warm_start: Any) -> float:
    if not (hysteresis >= 0 and math.isfinite(hysteresis)):
        raise SolverError(f"hysteresis={hysteresis} must be a finite bonus of at least 0")
    if hysteresis > 0 and warm_start is None:
        raise SolverError("hysteresis rewards entries of warm_start; give one")
    return hysteresis
