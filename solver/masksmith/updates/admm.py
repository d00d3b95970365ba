"""ADMM: optimises weights and mask together, alternating a ridge regression with the mask solver.

After Meng, Behdin, Wang and Mazumder, ALPS (NeurIPS 2024), for every pattern of this library.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from masksmith._errors import UpdateError
from masksmith._solution import Solution
from masksmith._solve import solve
from masksmith.patterns import Pattern, TilePattern, parse
from masksmith.solvers.base import Solver

from .operands import Operands, read, read_mask
from .reconstruct import refit
from .threads import torch_threads
from .update import AdmmStep, AdmmUpdate

OnProgress = Callable[[int, int], None]
Tensor = torch.Tensor

PENALTY_EVERY = 3
GROWTH = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))
"""Pairs (share of the kept entries that changed since the last check, factor of the penalty from that share on)."""


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

    where the mask keeps the most of the scores `(U + P / penalty)^2`: the nearest allowed `D`, computed by `ms.solve`
    with a warm start from the previous round. The penalty grows with the share of entries that changed; rounds end when
    the mask does not change. The last mask's weights are then reconstructed exactly. The problem is not convex: the
    last mask is optimal for its scores, not for the problem. If the first mask (for the scores `W^2 diag(H)`) has a
    smaller error, that one is returned, so `error <= start_error`.

    Args:
        weight: `[out, in, *kernel]`, numpy or torch, float64 to bfloat16.
        gram: `X^T X` of the layer's inputs, as for `reconstruct`.
        pattern: Pattern of allowed masks; any pattern.
        damping: Share of the mean diagonal, at least 0.
        penalty: Penalty of the first rounds, positive; a smaller one takes more rounds.
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
    if not (0 < penalty < float("inf") and max_rounds >= 1):
        raise UpdateError(f"penalty={penalty} and max_rounds={max_rounds} must be positive", name)
    started = time.perf_counter()
    operands = read(weight, gram, damping, name, rounded_to)
    with torch_threads(threads):
        search = _AdmmRounds(operands, parse(pattern) if isinstance(pattern, str) else pattern, solver, threads)
        first = search.solve(search.target**2, None) if start is None else start
        history, last = search.run(first, penalty, max_rounds, on_progress)
        refitted = [refit(operands, read_mask(solution.mask, operands), solution.mask) for solution in (first, last)]
    best = min(refitted, key=lambda update: update.error)
    stats = dict(best.stats) | {
        "method": "admm",
        "solver": last.stats["solver"],
        "solves": search.solves,
        "rounds": len(history),
        "settled": search.settled,
        "returned": "start" if best is refitted[0] else "last",
        "mask_s": search.mask_s,
        "update_s": time.perf_counter() - started,
    }
    return AdmmUpdate(
        best.weight, best.mask, best.error, best.masked_error, best.energy, stats,
        solution=first if best is refitted[0] else last, history=tuple(history), start_error=refitted[0].error,
    )  # fmt: skip


class _AdmmRounds:
    """The ADMM rounds, with inputs scaled to `diag(H) = 1`.

    Attributes:
        target: `W` times the inputs' scale, divided by its root mean square; its squares are the first scores.
        solves: Number of masks solved for.
        mask_s: Seconds of these solves.
        settled: Whether the rounds ended because the mask did not change.
    """

    def __init__(self, operands: Operands, pattern: Pattern, solver: Solver | str | None, threads: int | None) -> None:
        self._operands, self._pattern, self._solver, self._threads = operands, pattern, solver, threads
        self.solves, self.mask_s, self.settled = 0, 0.0, False
        dtype = torch.float64 if operands.weight.dtype is torch.float64 else torch.float32
        damped = operands.gram.clone()
        damped.diagonal().add_(operands.damping)
        scale = damped.diagonal().sqrt()
        if bool((scale == 0).any()):
            index = int((scale == 0).int().argmax())
            raise UpdateError(f"gram holds 0 at {[index, index]}: that input was always 0; use damping", operands.name)
        damped /= scale[:, None]
        damped /= scale[None, :]
        values, vectors = torch.linalg.eigh(damped)
        target = operands.weight.double() * scale
        target /= float(target.square().mean().sqrt()) or 1.0  # so that squares stay in float32's range
        self._values, self._vectors = values.clamp(min=0).to(dtype), vectors.to(dtype)
        self._projected_target = (target @ damped @ vectors).to(dtype)  # [out, inputs], in the basis of H
        self.target = target.to(dtype)

    def run(
        self, first: Solution, penalty: float, max_rounds: int, on_progress: OnProgress | None
    ) -> tuple[list[AdmmStep], Solution]:
        """Run the rounds; return their history and the last mask's solution."""
        solution, mask = first, read_mask(first.mask, self._operands)
        copy, duals = self.target * mask, torch.zeros_like(self.target)
        norm, checked = float(self.target.norm()) or 1.0, mask
        history: list[AdmmStep] = []
        for number in range(1, max_rounds + 1):
            free = self._regress(penalty * copy - duals, penalty)
            shifted = free + duals / penalty
            solution = self.solve(shifted**2, solution)
            before, mask = mask, read_mask(solution.mask, self._operands)
            copy = shifted * mask
            duals += penalty * (free - copy)
            distance = float((free - copy).norm()) / norm
            history.append(AdmmStep(penalty, int((mask != before).sum()), distance, solution.gap))
            if on_progress is not None:
                on_progress(number, max_rounds)
            if number % PENALTY_EVERY == 0:
                changed, checked = int((mask != checked).sum()), mask
                if changed == 0:
                    self.settled = True
                    break
                penalty *= next(factor for share, factor in GROWTH if changed >= share * int(mask.sum()))
        return history, solution

    def solve(self, scores: Tensor, previous: Solution | None) -> Solution:
        """Solve for the best mask for scores `[out, inputs]`."""
        tiled = isinstance(self._pattern, TilePattern)
        solution = solve(
            self._operands.like_weight(scores),
            self._pattern,
            self._solver,
            warm_start=previous if tiled else None,
            keep_duals=tiled,
            threads=self._threads,
            name=self._operands.name,
        )
        self.solves += 1
        self.mask_s += float(solution.stats["solve_s"])
        return solution

    def _regress(self, offset: Tensor, penalty: float) -> Tensor:
        """Return `(W H + offset) (H + penalty I)^-1`."""
        coefficients = (self._projected_target + offset @ self._vectors) / (self._values + penalty)
        free: Tensor = coefficients @ self._vectors.T
        return free
