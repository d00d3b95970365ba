"""ADMM: optimises weights and mask together, alternating a ridge regression with the mask solver.

After Meng, Behdin, Wang and Mazumder, ALPS (NeurIPS 2024), for every pattern of this library.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from numbers import Integral
from typing import Any

import torch

from masksmith._errors import UpdateError
from masksmith._solution import Solution
from masksmith._solve import solve
from masksmith._torch_modes import in_full_precision
from masksmith._verify import verify
from masksmith.patterns import Pattern, TilePattern
from masksmith.patterns.grammar import read_pattern
from masksmith.solvers.base import Solver

from .operands import Operands, read, read_mask
from .reconstruct import refit
from .ridge import Ridge
from .rough_error import rough_errors
from .system import ScaledSystem
from .threads import update_threads
from .update import AdmmRound, AdmmUpdate, Update

OnProgress = Callable[[int, int], None]
Tensor = torch.Tensor

ROUNDS_PER_CHECK = 3
"""Rounds between two checks, at which the penalty grows or the rounds end."""
GROWTH = ((0.4, 1.4), (0.1, 1.2), (0.03, 1.1), (0.0, 2.0))
"""Pairs (share, factor). The penalty grows by the factor of the first pair whose share is at most the changed share.

The changed share is the number of entries that changed since the last check, divided by the number of kept or of
dropped entries, whichever is smaller.
"""
START_TOLERANCE = 0.2
"""Relative tolerance to which the first mask's error is computed for the comparison with the last mask's error. If the
last mask's error is not smaller by more than this share, the first mask's weights are reconstructed, too."""
PENALTIES = (1e-6, 1e6)
"""Least and largest penalty of the first rounds: far beyond them, float32 overflows."""
SETTLED_SHARE = 0.01
"""The rounds end when at most this share of entries, as in `GROWTH`, changed since the last check."""


@in_full_precision()
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
    matrix; `ms.solve` computes the mask, with a warm start from the previous round if the pattern's solver uses duals.
    The penalty grows every few rounds, by a factor that depends on how much the mask changed; rounds end when the mask
    hardly changes, or after `max_rounds`. The last mask's weights are then reconstructed, starting from `D`. The
    problem is not convex: the last mask is optimal for its scores, not for the problem. The last mask is returned if
    its error is smaller than that of the first mask (`start`, or the best for the scores `W^2 diag(H)`), else the
    first mask. So `error <= start_error`. The first mask's weights are reconstructed only if its error, computed to a
    tolerance of 20 %, does not tell which mask has the smaller one.

    Args:
        weight: `[out, in, *kernel]`, numpy or torch, float64 to bfloat16.
        gram: `X^T X` of the layer's inputs, as for `reconstruct`.
        pattern: Pattern of allowed masks; any pattern.
        damping: Share of the mean of `diag(X^T X)`, from 0 to 10^9.
        penalty: Penalty of the first rounds, from 10^-6 to 10^6; a smaller one takes more rounds.
        max_rounds: Maximum number of rounds.
        rounded_to: As for `reconstruct`.
        solver: As for `solve`.
        start: Initial solution, for the same pattern, solved without `layout` and `view`;
            by default the best mask for the first scores.
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
    if not isinstance(max_rounds, Integral) or max_rounds < 1:
        raise UpdateError(f"max_rounds={max_rounds!r} is not an integer of at least 1", name)
    if start is not None and not isinstance(start, Solution):
        raise UpdateError(f"start is a {type(start).__name__}, not a Solution as solve returns it", name)
    started = time.perf_counter()
    operands = read(weight, gram, damping, name, rounded_to)
    parsed = read_pattern(pattern)
    if start is not None:
        _check_start(start, parsed, operands)
    with update_threads(threads, name):
        rounds = _AdmmRounds(operands, parsed, solver, threads)
        first_solution = rounds.solve(rounds.target**2, None) if start is None else start
        history, last_solution = rounds.run(first_solution, penalty, max_rounds, on_progress)
        best = last_update = rounds.refit(last_solution, rounds.masked_weights())
        start_error, start_masked_error = rounds.rough_errors(first_solution)
        if last_update.error * (1 + START_TOLERANCE) >= start_error:
            first_update = rounds.refit(first_solution, None)
            start_error, start_masked_error = first_update.error, first_update.masked_error
            best = min(first_update, last_update, key=lambda update: update.error)
    is_improved = best is last_update
    stats = dict(best.stats) | rounds.stats() | {
        "method": "admm",
        "solver": last_solution.stats["solver"],
        "rounds": len(history),
        "returned": "last" if is_improved else "start",
        "update_s": time.perf_counter() - started,
    }  # fmt: skip
    return AdmmUpdate(
        best.weight, best.mask, best.error, best.masked_error, best.energy, stats,
        solution=last_solution if is_improved else first_solution, history=tuple(history),
        start_error=start_error, start_masked_error=start_masked_error,
    )  # fmt: skip


def _check_start(start: Solution, pattern: Pattern, operands: Operands) -> None:
    """Raise `UpdateError` if `start` is of another pattern or layout, since `admm` may return its mask and proof."""
    if start.pattern != pattern:
        raise UpdateError(f"start is a solution for the pattern {start.pattern}, not for {pattern}", operands.name)
    if start._layout is not None:
        axes = str(start._layout)
        raise UpdateError(f"start was solved with layout={axes!r}; solve without a layout", operands.name)
    mask = read_mask(start.mask, operands)
    if not verify(mask.reshape(tuple(operands.original.shape)), pattern):
        raise UpdateError(f"the mask of start is not allowed by its pattern {pattern}", operands.name)


def uses_duals(pattern: Pattern) -> bool:
    """Whether duals of an earlier mask speed up the rounds: if rows and columns of a tile have budgets.

    Masks of other patterns are solved for without duals of an earlier mask.
    """
    return isinstance(pattern, TilePattern) and not pattern.tile.separable


class _AdmmRounds:
    """The ADMM rounds, with inputs scaled to `diag(H) = 1`.

    Attributes:
        target: `W` times the inputs' scale, divided by the root mean square of this product. The squares of `target`
            are the first scores.
        solves: Number of masks that were solved for.
        mask_s: Seconds of these solves.
        settled: Whether the rounds ended because the mask hardly changed.
    """

    def __init__(self, operands: Operands, pattern: Pattern, solver: Solver | str | None, threads: int | None) -> None:
        self._operands, self._pattern, self._solver, self._threads = operands, pattern, solver, threads
        self.solves, self.mask_s, self.settled = 0, 0.0, False
        self._uses_duals = uses_duals(pattern)
        is_zero = (operands.gram.diagonal() + operands.diagonal_damping == 0).int()
        if bool(is_zero.any()):
            index = int(is_zero.argmax())
            raise UpdateError(f"gram holds 0 at {[index, index]}: that input was always 0; use damping", operands.name)
        self._scaled = ScaledSystem.of(operands)
        system, self._scale = self._scaled.system.matrix, self._scaled.scale
        target = operands.weight.double() * self._scale
        self._rms = float(target.square().mean().sqrt()) or 1.0  # so that squares stay in float32's range
        self.target = (target / self._rms).to(system.dtype)
        self._ridge = Ridge(system, self.target)
        self._scaled = replace(
            self._scaled, system=self._scaled.system.with_eigenvalue(self._ridge.smallest_eigenvalue)
        )
        self._masked_copy = self.target

    def run(
        self, first: Solution, penalty: float, max_rounds: int, on_progress: OnProgress | None
    ) -> tuple[list[AdmmRound], Solution]:
        """Run the rounds from a first mask; return their history and the solution of the last one."""
        solution, mask = first, read_mask(first.mask, self._operands)
        kept_count, checked_mask, norm = int(mask.sum()), mask, float(self.target.norm()) or 1.0
        smaller_count = min(kept_count, mask.numel() - kept_count)  # number of the kept or of the dropped entries
        self._masked_copy, duals = self.target * mask, torch.zeros_like(self.target)
        history: list[AdmmRound] = []
        for number in range(1, max_rounds + 1):
            free_weights = self._ridge.solve((penalty * self._masked_copy).sub_(duals), penalty)
            shifted = torch.add(free_weights, duals, alpha=1 / penalty)
            solution = self.solve(shifted.square(), solution)
            previous, mask = mask, read_mask(solution.mask, self._operands)
            self._masked_copy = shifted * mask
            distance = float(free_weights.sub_(self._masked_copy).norm()) / norm
            duals = shifted.sub_(self._masked_copy).mul_(penalty)
            history.append(AdmmRound(penalty, int((mask != previous).sum()), distance, solution.gap))
            if on_progress is not None:
                on_progress(number, max_rounds)
            if number % ROUNDS_PER_CHECK == 0:
                changed_count, checked_mask = int((mask != checked_mask).sum()), mask
                if changed_count <= SETTLED_SHARE * smaller_count:
                    self.settled = True
                    break
                penalty *= next(factor for share, factor in GROWTH if changed_count >= share * smaller_count)
        return history, solution

    def stats(self) -> dict[str, Any]:
        """Return the members of the update's stats that are about solving for masks."""
        return {"solves": self.solves, "settled": self.settled, "mask_s": self.mask_s}

    def masked_weights(self) -> Tensor:
        """Return the last masked copy, `[out, inputs]`, in the weight's units."""
        return self._masked_copy.double() * self._rms / self._scale

    def refit(self, solution: Solution, start: Tensor | None) -> Update:
        """Reconstruct the weights of a solution's mask, starting from `start`, or from the masked original weights."""
        mask = read_mask(solution.mask, self._operands)
        return refit(self._operands, mask, solution.mask, scaled=self._scaled, start=start)

    def rough_errors(self, solution: Solution) -> tuple[float, float]:
        """Return `rough_errors` of a solution's mask, within `START_TOLERANCE`.

        Without damping, they are not computed: 0 and 0 are returned, so that `admm` reconstructs the mask's weights.
        """
        if not self._operands.diagonal_damping:
            return 0.0, 0.0
        mask = read_mask(solution.mask, self._operands)
        errors = rough_errors(self._operands, self._scaled, self.target, mask, START_TOLERANCE)
        return errors[0] * self._rms**2, errors[1] * self._rms**2

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
