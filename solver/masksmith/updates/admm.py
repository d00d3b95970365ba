"""ADMM: optimises weights and mask together, alternating a ridge regression with the mask solver.

After Meng, Behdin, Wang and Mazumder, ALPS (NeurIPS 2024), for every pattern of this library.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from masksmith._errors import UpdateError
from masksmith._solution import Solution
from masksmith._solve import solve
from masksmith._torch_modes import without_autocast
from masksmith.patterns import Pattern, TilePattern, parse
from masksmith.solvers.base import Solver

from .operands import Operands, read, read_mask
from .reconstruct import TOLERANCE, refit
from .ridge import Ridge
from .strips import ScaledSystem
from .threads import torch_threads
from .update import AdmmRound, AdmmUpdate, Update

OnProgress = Callable[[int, int], None]
Tensor = torch.Tensor

ROUNDS_PER_CHECK = 3
"""Rounds between two checks, at which the penalty grows or the rounds end."""
GROWTH = ((0.4, 1.4), (0.1, 1.2), (0.03, 1.1), (0.0, 2.0))
"""Pairs (share, factor): the penalty grows by the first factor for which at least this share of entries changed since
the last check. Shares are of the kept or the dropped entries, whichever are fewer."""
START_TOLERANCE = 0.05
"""Tolerance of the reconstruction on the first mask, which serves to compare errors; if that mask is the better one,
its weights are reconstructed again, to `TOLERANCE`."""
PENALTIES = (1e-6, 1e6)
"""Least and largest penalty of the first rounds: far beyond them, float32 overflows."""
SETTLED_BELOW = 0.01
"""The rounds end when at most this share of entries, as in `GROWTH`, changed since the last check."""


@without_autocast()
def admm(
    weight: Any,
    gram: Any,
    pattern: Pattern | str,
    *,
    damping: float = 0.01,
    penalty: float = 0.03,
    max_rounds: int = 300,
    rounded_to: str | None = None,
    solver: Solver | str | None = None,
    start: Solution | None = None,
    threads: int | None = None,
    name: str | None = None,
    on_progress: OnProgress | None = None,
) -> AdmmUpdate:
    """Prune a layer to a pattern so that its output on the calibration data changes little.

    Minimises `trace((V - W) H (V - W)^T)`, `H = X^T X + damping * mean(diag(X^T X)) * I`, over weights `V` on any
    allowed mask. With inputs scaled to `diag(H) = 1`, each round solves for free weights `U`, for a masked copy `D`,
    and for duals `P` of their difference:

        U = (H + penalty I)^-1 (H W + penalty D - P),   D = mask * (U + P / penalty),   P = P + penalty (U - D)

    where the mask maximises the kept sum of the scores `(U + P / penalty)^2`, so that `D` is the nearest allowed
    matrix; `ms.solve` computes it, with a warm start from the previous round where duals help. The penalty grows every
    few rounds, by a factor that depends on how much the mask changed; rounds end when the mask hardly changes, or after
    `max_rounds`. The last mask's weights are then reconstructed, starting from `D`. The problem is not convex: the last
    mask is optimal for its scores, not for the problem. If the first mask (`start`, or the best for the scores
    `W^2 diag(H)`) has a smaller error, that one is returned, so `error <= start_error`; otherwise `start_error` is
    computed to a tolerance of 5 %.

    Args:
        weight: `[out, in, *kernel]`, numpy or torch, float64 to bfloat16.
        gram: `X^T X` of the layer's inputs, as for `reconstruct`.
        pattern: Pattern of allowed masks; any pattern.
        damping: Share of the mean diagonal, from 0 to 10^9.
        penalty: Penalty of the first rounds, from 10^-6 to 10^6; a smaller one takes more rounds.
        max_rounds: Maximum number of rounds.
        rounded_to: As for `reconstruct`.
        solver: As for `solve`.
        start: Initial solution; by default the best mask for the first scores.
        threads: Threads of the mask solver and of torch; by default their own settings.
        name: Name of the weight in error messages.
        on_progress: Called with (rounds done, `max_rounds`); an exception in it stops the update.

    Returns:
        Weights, the mask with its proof, and the history of rounds.

    Raises:
        UpdateError: As `reconstruct`; or if the penalty, `max_rounds` or `start` cannot be used.
        PatternError: If the pattern is malformed or does not fit the shape.
        SolverError: If the solver does not support the pattern or an option.
    """
    if not PENALTIES[0] <= penalty <= PENALTIES[1]:
        raise UpdateError(f"penalty={penalty!r} is not a number from {PENALTIES[0]:g} to {PENALTIES[1]:g}", name)
    if not max_rounds >= 1:
        raise UpdateError(f"max_rounds={max_rounds!r} is not at least 1", name)
    if start is not None and not isinstance(start, Solution):
        raise UpdateError(f"start is a {type(start).__name__}, not a Solution as solve returns it", name)
    started = time.perf_counter()
    operands = read(weight, gram, damping, name, rounded_to)
    with torch_threads(threads):
        rounds = _AdmmRounds(operands, parse(pattern) if isinstance(pattern, str) else pattern, solver, threads)
        first = rounds.solve(rounds.target**2, None) if start is None else start
        history, last = rounds.run(first, penalty, max_rounds, on_progress)
        last_update = rounds.refit(last, rounds.masked_weights(), TOLERANCE)
        first_update = rounds.refit(first, None, START_TOLERANCE)
        improved = last_update.error < first_update.error
        if not improved:
            precise = rounds.refit(first, None, TOLERANCE)
            first_update = min(first_update, precise, key=lambda update: update.error)
    best = last_update if improved else first_update
    stats = dict(best.stats) | rounds.stats() | {
        "method": "admm",
        "solver": last.stats["solver"],
        "rounds": len(history),
        "returned": "last" if improved else "start",
        "update_s": time.perf_counter() - started,
    }  # fmt: skip
    return AdmmUpdate(
        best.weight, best.mask, best.error, best.masked_error, best.energy, stats,
        solution=last if improved else first, history=tuple(history), start_error=first_update.error,
        start_masked_error=first_update.masked_error,
    )  # fmt: skip


def uses_duals(pattern: Pattern) -> bool:
    """Whether duals of an earlier mask speed up the rounds: if rows and columns of a tile have budgets.

    Entries of other patterns are ranked, by row or in the whole tensor.
    """
    return isinstance(pattern, TilePattern) and not pattern.tile.separable


class _AdmmRounds:
    """The ADMM rounds, with inputs scaled to `diag(H) = 1`.

    Attributes:
        target: `W` times the inputs' scale, divided by its root mean square; its squares are the first scores.
        solves: Number of masks that were solved for.
        mask_s: Seconds of these solves.
        settled: Whether the rounds ended because the mask hardly changed.
    """

    def __init__(self, operands: Operands, pattern: Pattern, solver: Solver | str | None, threads: int | None) -> None:
        self._operands, self._pattern, self._solver, self._threads = operands, pattern, solver, threads
        self.solves, self.mask_s, self.settled = 0, 0.0, False
        self._uses_duals = uses_duals(pattern)
        zero = (operands.gram.diagonal() + operands.damping == 0).int()
        if bool(zero.any()):
            index = int(zero.argmax())
            raise UpdateError(f"gram holds 0 at {[index, index]}: that input was always 0; use damping", operands.name)
        self._scaled = ScaledSystem.of(operands)
        system, self._scale = self._scaled.system.matrix, self._scaled.scale
        target = operands.weight.double() * self._scale
        self._rms = float(target.square().mean().sqrt()) or 1.0  # so that squares stay in float32's range
        self.target = (target / self._rms).to(system.dtype)
        self._ridge = Ridge(system, self.target)
        self._scaled = replace(self._scaled, system=self._scaled.system.with_eigenvalue(self._ridge.smallest))
        self._copy = self.target

    def run(
        self, first: Solution, penalty: float, max_rounds: int, on_progress: OnProgress | None
    ) -> tuple[list[AdmmRound], Solution]:
        """Run the rounds from a first mask; return their history and the solution of the last one."""
        solution, mask = first, read_mask(first.mask, self._operands)
        kept, checked, norm = int(mask.sum()), mask, float(self.target.norm()) or 1.0
        fewer = min(kept, mask.numel() - kept)  # of the kept and the dropped entries
        self._copy, duals = self.target * mask, torch.zeros_like(self.target)
        history: list[AdmmRound] = []
        for number in range(1, max_rounds + 1):
            free = self._ridge.solve((penalty * self._copy).sub_(duals), penalty)
            shifted = torch.add(free, duals, alpha=1 / penalty)
            solution = self.solve(shifted.square(), solution)
            previous, mask = mask, read_mask(solution.mask, self._operands)
            self._copy = shifted * mask
            distance = float(free.sub_(self._copy).norm()) / norm
            duals = shifted.sub_(self._copy).mul_(penalty)
            history.append(AdmmRound(penalty, int((mask != previous).sum()), distance, solution.gap))
            if on_progress is not None:
                on_progress(number, max_rounds)
            if number % ROUNDS_PER_CHECK == 0:
                changed, checked = int((mask != checked).sum()), mask
                if changed <= SETTLED_BELOW * fewer:
                    self.settled = True
                    break
                penalty *= next(factor for share, factor in GROWTH if changed >= share * fewer)
        return history, solution

    def stats(self) -> dict[str, Any]:
        """Return the part of the update's stats that concerns the masks."""
        return {"solves": self.solves, "settled": self.settled, "mask_s": self.mask_s}

    def masked_weights(self) -> Tensor:
        """Return the last masked copy, `[out, inputs]`, in the weight's units."""
        return self._copy.double() * self._rms / self._scale

    def refit(self, solution: Solution, start: Tensor | None, tolerance: float) -> Update:
        """Reconstruct a solution's weights from the weights `start`, or from the masked ones."""
        mask = read_mask(solution.mask, self._operands)
        return refit(self._operands, mask, solution.mask, tolerance=tolerance, scaled=self._scaled, start=start)

    def solve(self, scores: Tensor, previous: Solution | None) -> Solution:
        """Solve for the best mask for scores `[out, inputs]`."""
        solution = solve(
            self._operands.like_weight(scores),
            self._pattern,
            self._solver,
            warm_start=previous if self._uses_duals else None,
            keep_duals=self._uses_duals,
            threads=self._threads,
            name=self._operands.name,
        )
        self.solves += 1
        self.mask_s += float(solution.stats["solve_s"])
        return solution
