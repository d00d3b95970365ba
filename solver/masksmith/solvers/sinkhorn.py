"""Sinkhorn solver: entropic optimal transport, greedy rounding and local search, for many tiles at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from masksmith._errors import SolverError
from masksmith.patterns import TileSpec

from ._duals.sweeps import dual_value, duality_gap, sweep_duals
from ._rounding.entropic import entropic_plan
from ._rounding.exchange import exchange
from ._rounding.repair import fill_up
from ._rounding.torch_chunks import TorchSolver
from .greedy import keep_descending

TEMPERATURES = (80.0, 200.0, 40.0)
"""Values of `temperature` that are tried by default, in this order."""
TOLERANCE = 1e-12
"""Duality gap, relative to the tile's largest score, up to which a mask is taken as optimal and is not improved."""
PLAN_SWEEPS = 4
"""Number of sweeps that start from the duals of a plan; fewer than from zero, which is farther from the optimum."""


@dataclass(frozen=True)
class Sinkhorn(TorchSolver):
    """Entropic relaxation, greedy rounding, repair and local search.

    The transport plan of `_rounding.entropic` ranks the entries. The solver keeps them in this order while budgets
    allow, fills the mask up by swaps, and improves it by exchanges. No value of `temperature`, which is an inverse
    temperature, suits all tiles: small ones give blurred plans, large ones do not converge. By default the solver tries
    several, each on the tiles that are not yet proved optimal.

    Meng, Makni and Mazumder (2025), TSENOR: highly-efficient algorithm for finding transposable N:M sparse masks,
    NeurIPS. Re-implemented from the paper.

    Attributes:
        temperature: Inverse temperature `tau`, in units of 1 / largest score of the tile; a larger value gives a
            sharper plan. None tries the values `TEMPERATURES`.
        iterations: Number of projection cycles for each value of `temperature`.
        local_search: Maximum number of exchanges per tile, for each value of `temperature`.
        device: Torch device, the CPU by default.
    """

    temperature: float | None = None
    iterations: int = 300
    local_search: int = 16
    device: str | None = None

    name: ClassVar[str] = "sinkhorn"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.temperature is not None and not 0 < self.temperature <= 300:
            raise SolverError(f"temperature={self.temperature} must lie in (0, 300]")
        if self.iterations < 1:
            raise SolverError(f"iterations={self.iterations} must be positive")
        if self.local_search < 0:
            raise SolverError(f"local_search={self.local_search} must not be negative")

    def solve_tiles(self, tiles: torch.Tensor, tile: TileSpec) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compute masks by rounding transport plans, and duals that bound the optimum."""
        scores = tiles.double().permute(1, 2, 0).contiguous()
        u, v = sweep_duals(scores, tile)
        mask = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
        gaps = torch.full_like(scores[0, 0], torch.inf)
        peak = scores.amax((0, 1))
        for temperature in TEMPERATURES if self.temperature is None else (self.temperature,):
            active = (gaps > TOLERANCE * peak).nonzero()[:, 0]
            if len(active):
                candidates = self._solve_at(scores[..., active], tile, temperature, u[:, active], v[:, active])
                _keep_better(scores, tile, active, candidates, (mask, u, v, gaps))
        return mask.permute(2, 0, 1), u.T, v.T

    def _solve_at(
        self, scores: torch.Tensor, tile: TileSpec, temperature: float, u: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return masks `[R, C, T]` at one temperature, and per tile the better duals: `u` and `v`, or the plan's."""
        peak = scores.amax((0, 1)).clamp_(min=torch.finfo(scores.dtype).tiny)
        unclamped_plan, c = entropic_plan(scores / peak, tile, temperature, self.iterations)
        tiles = scores.permute(2, 0, 1).contiguous()
        mask = fill_up(tiles, keep_descending(unclamped_plan.permute(2, 0, 1), tile), tile)
        mask_tiles_last = mask.permute(1, 2, 0)  # a view with tiles along the last axis
        unproved = (duality_gap(scores, mask_tiles_last, tile, u, v) > TOLERANCE * peak).nonzero()[:, 0]
        mask[unproved] = exchange(tiles[unproved], mask[unproved], self.local_search)
        plan_u, plan_v = sweep_duals(scores, tile, PLAN_SWEEPS, -c.log() * (peak / temperature))
        plan_is_better = dual_value(scores, tile, plan_u, plan_v) < dual_value(scores, tile, u, v)
        return mask_tiles_last, torch.where(plan_is_better, plan_u, u), torch.where(plan_is_better, plan_v, v)


def _keep_better(
    scores: torch.Tensor,
    tile: TileSpec,
    active: torch.Tensor,
    candidates: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    best: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    """Write new masks and duals of the tiles `active` to `best`, which holds masks, row duals, column duals, and gaps.

    Row and column duals are always replaced. The mask of a tile is replaced if the new one keeps more, or is the first.
    The duality gap is computed anew, from the duals and the mask that `best` then holds.

    Args:
        scores: `[R, C, T]` of all tiles.
        tile: Budgets.
        active: Indices of the tiles that `candidates` belong to.
        candidates: New masks, row duals and column duals.
        best: Changed in place.
    """
    (mask, u, v, gaps), (new_mask, new_u, new_v) = best, candidates
    u[:, active], v[:, active] = new_u, new_v
    new_gaps = duality_gap(scores[..., active], new_mask, tile, new_u, new_v)
    old_gaps = duality_gap(scores[..., active], mask[..., active], tile, new_u, new_v)
    is_replaced = (new_gaps < old_gaps) | (gaps[active] == torch.inf)
    mask[..., active[is_replaced]] = new_mask[..., is_replaced]
    gaps[active] = torch.where(is_replaced, new_gaps, old_gaps)
