"""ADMM: weights and mask are found together, alternating a ridge regression with the exact mask solver.

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
"""Share of the kept entries that changed since the last look, and what the penalty is multiplied by above it."""


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

    where the mask keeps the most of the scores `(U + P / penalty)^2`: the nearest allowed `D`, proved by `ms.solve` and
    warm started from the round before. The penalty grows by what the mask changed; rounds end when nothing changes.
    The last mask's weights are then reconstructed exactly. The problem is not convex: the last mask is the best for its
    scores, not for the problem. Should the first mask (of the scores `W^2 diag(H)`) turn out better, that one is
    returned, so `error <= start_error`.

    Args:
        weight: `[out, in, *kernel]`, numpy or torch, float64 to bfloat16.
        gram: `X^T X` of the layer's inputs, as for `reconstruct`.
        pattern: What is allowed; any pattern.
        damping: Share of the mean diagonal, at least 0.
        penalty: Of the first rounds, positive; less of it searches longer.
        max_rounds: Rounds at most.
        rounded_to: As for `reconstruct`.
        solver: As for `solve`.
        start: A solution to start from; the best mask of the first scores unless given.
        threads: Of the mask solver and of torch; each its own number unless given.
        name: What messages call the weight.
        on_progress: Called with (rounds done, `max_rounds`); what it raises stops the work.

    Returns:
        Weights, the mask with its proof, and the rounds.

    Raises:
        UpdateError: As `reconstruct`; or if the penalty, `max_rounds` or `start` cannot be used.
        PatternError: If the pattern is malformed or does not fit the shape.
        SolverError: If the solver cannot do what is asked of it.
    """
    if not (0 < penalty < float("inf") and max_rounds >= 1):
        raise UpdateError(f"penalty={penalty} and max_rounds={max_rounds} must be positive", name)
    begun = time.perf_counter()
    operands = read(weight, gram, damping, name, rounded_to)
    with torch_threads(threads):
        search = _Search(operands, parse(pattern) if isinstance(pattern, str) else pattern, solver, threads)
        first = search.solve(search.target**2, None) if start is None else start
        history, last = search.run(first, penalty, max_rounds, on_progress)
        refitted = [refit(operands, read_mask(found.mask, operands), found.mask) for found in (first, last)]
    best = min(refitted, key=lambda update: update.error)
    stats = dict(best.stats) | {
        "method": "admm",
        "solver": last.stats["solver"],
        "solves": search.solves,
        "rounds": len(history),
        "settled": search.settled,
        "returned": "start" if best is refitted[0] else "last",
        "mask_s": search.mask_s,
        "update_s": time.perf_counter() - begun,
    }
    return AdmmUpdate(
        best.weight, best.mask, best.error, best.masked_error, best.energy, stats,
        solution=first if best is refitted[0] else last, history=tuple(history), start_error=refitted[0].error,
    )  # fmt: skip


class _Search:
    """The rounds, in inputs scaled to `diag(H) = 1`.

    Attributes:
        target: `W` times the inputs' scale, in units of its own root mean square; its squares are the first scores.
        solves: Masks solved for.
        mask_s: Seconds that took.
        settled: Whether the rounds ended because the mask no longer changed.
    """

    def __init__(self, operands: Operands, pattern: Pattern, solver: Solver | str | None, threads: int | None) -> None:
        self._operands, self._pattern, self._solver, self._threads = operands, pattern, solver, threads
        self.solves, self.mask_s, self.settled = 0, 0.0, False
        dtype = torch.float64 if operands.weight.dtype is torch.float64 else torch.float32
        damped = operands.gram.clone()
        damped.diagonal().add_(operands.damping)
        scale = damped.diagonal().sqrt()
        if bool((scale == 0).any()):
            dead = int((scale == 0).int().argmax())
            raise UpdateError(f"gram holds 0 at {[dead, dead]}: that input never moved; damp it", operands.name)
        damped /= scale[:, None]
        damped /= scale[None, :]
        values, vectors = torch.linalg.eigh(damped)
        target = operands.weight.double() * scale
        target /= float(target.square().mean().sqrt()) or 1.0  # lest squares leave float32's range
        self._values, self._vectors = values.clamp(min=0).to(dtype), vectors.to(dtype)
        self._pull = (target @ damped @ vectors).to(dtype)  # [out, inputs], in the basis of H
        self.target = target.to(dtype)

    def run(
        self, first: Solution, penalty: float, max_rounds: int, on_progress: OnProgress | None
    ) -> tuple[list[AdmmStep], Solution]:
        """Go through the rounds; gives them and the last mask."""
        solution, mask = first, read_mask(first.mask, self._operands)
        copy, duals = self.target * mask, torch.zeros_like(self.target)
        norm, looked = float(self.target.norm()) or 1.0, mask
        history: list[AdmmStep] = []
        for number in range(1, max_rounds + 1):
            free = self._regress(penalty * copy - duals, penalty)
            aim = free + duals / penalty
            solution = self.solve(aim**2, solution)
            before, mask = mask, read_mask(solution.mask, self._operands)
            copy = aim * mask
            duals += penalty * (free - copy)
            distance = float((free - copy).norm()) / norm
            history.append(AdmmStep(penalty, int((mask != before).sum()), distance, solution.gap))
            if on_progress is not None:
                on_progress(number, max_rounds)
            if number % PENALTY_EVERY == 0:
                changed, looked = int((mask != looked).sum()), mask
                if changed == 0:
                    self.settled = True
                    break
                penalty *= next(factor for share, factor in GROWTH if changed >= share * int(mask.sum()))
        return history, solution

    def solve(self, scores: Tensor, previous: Solution | None) -> Solution:
        """Find the best mask for scores `[out, inputs]`."""
        tiled = isinstance(self._pattern, TilePattern)
        found = solve(
            self._operands.hand_over(scores),
            self._pattern,
            self._solver,
            warm_start=previous if tiled else None,
            keep_duals=tiled,
            threads=self._threads,
            name=self._operands.name,
        )
        self.solves += 1
        self.mask_s += float(found.stats["solve_s"])
        return found

    def _regress(self, pulled: Tensor, penalty: float) -> Tensor:
        """Give `(H W + pulled) (H + penalty I)^-1`."""
        inside = (self._pull + pulled @ self._vectors) / (self._values + penalty)
        free: Tensor = inside @ self._vectors.T
        return free
