"""Entropic transport, rounded and searched locally: the published state of the art for many tiles at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from masksmith._errors import SolverError
from masksmith.patterns import TileSpec

from ._duals.sweeps import dual_value, shortfall, sweep_duals
from ._rounding.entropic import entropic_plan
from ._rounding.exchange import exchange
from ._rounding.repair import fill_up
from ._rounding.torch_chunks import TorchSolver
from .greedy import keep_descending

TEMPERATURES = (80.0, 200.0, 40.0)
SETTLED = 1e-12
"""Shortfall, relative to the tile's largest score, below which no other temperature is tried."""


@dataclass(frozen=True)
class Sinkhorn(TorchSolver):
    """Relax with entropy, project, round greedily, search locally.

    The plan of `_rounding.entropic` ranks the entries; they are kept in that order while they fit, filled by swaps and
    improved by exchanges. Nobody knows a temperature that suits all tiles: too low blurs, too high does not converge.
    Left to itself the solver tries several, on those tiles alone that the certificate has not yet proved optimal.

    Meng, Makni and Mazumder (2025), TSENOR: highly-efficient algorithm for finding transposable N:M sparse masks,
    NeurIPS. Re-implemented from the paper.

    Attributes:
        temperature: `tau`, in units of one over the tile's largest score; None tries several.
        iterations: Cycles of projections.
        local_search: Exchanges a tile at most.
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
        """Solve every tile as well as rounding allows."""
        scores = tiles.double().permute(1, 2, 0).contiguous()
        u, v = sweep_duals(scores, tile)
        mask = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
        lost = torch.full_like(scores[0, 0], torch.inf)
        peak = scores.amax((0, 1))
        for temperature in TEMPERATURES if self.temperature is None else (self.temperature,):
            live = (lost > SETTLED * peak).nonzero()[:, 0]
            if len(live):
                found = self._round(scores[..., live], tile, temperature, u[:, live], v[:, live])
                _keep_better(scores, tile, live, found, (mask, u, v, lost))
        return mask.permute(2, 0, 1), u.T, v.T

    def _round(
        self, scores: torch.Tensor, tile: TileSpec, temperature: float, u: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give masks `[R, C, T]` at one temperature, and the better duals: those given or the plan's own."""
        peak = scores.amax((0, 1)).clamp_(min=torch.finfo(scores.dtype).tiny)
        ranks, c = entropic_plan(scores / peak, tile, temperature, self.iterations)
        tiles = scores.permute(2, 0, 1).contiguous()
        mask = fill_up(tiles, keep_descending(ranks.permute(2, 0, 1), tile), tile)
        lanes = mask.permute(1, 2, 0)
        poor = (shortfall(scores, lanes, tile, u, v) > SETTLED * peak).nonzero()[:, 0]
        mask[poor] = exchange(tiles[poor], mask[poor], self.local_search)
        p, q = sweep_duals(scores, tile, 4, -c.log() * (peak / temperature))
        better = dual_value(scores, tile, p, q) < dual_value(scores, tile, u, v)
        return lanes, torch.where(better, p, u), torch.where(better, q, v)


def _keep_better(
    scores: torch.Tensor,
    tile: TileSpec,
    live: torch.Tensor,
    found: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    best: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    """Write duals of tiles `live` to `best`, and masks where they keep more; `best` holds the shortfalls too."""
    (mask, u, v, lost), (new_mask, new_u, new_v) = best, found
    u[:, live], v[:, live] = new_u, new_v
    new = shortfall(scores[..., live], new_mask, tile, new_u, new_v)
    old = shortfall(scores[..., live], mask[..., live], tile, new_u, new_v)
    better = (new < old) | (lost[live] == torch.inf)
    mask[..., live[better]] = new_mask[..., better]
    lost[live] = torch.where(better, new, old)
