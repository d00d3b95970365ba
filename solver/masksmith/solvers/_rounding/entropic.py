"""Capacitated entropic optimal transport: the relaxed mask that `Sinkhorn` rounds.

`max <S, W> + H(S) / tau` over `S 1 = n`, `S^T 1 = n_out`, `0 <= S <= 1`, for scores W, entropy H and the budgets n of
rows and n_out of columns, is solved by Dykstra's algorithm with Kullback-Leibler projections: scale the rows to sum n,
scale the columns to sum n_out, clamp at 1 and store the correction. The product of plan and correction is always
`Z = r_i exp(tau w_ij) c_j`, so the correction need not be stored: the plan is `min(Z, 1)`, and the whole state is the
two vectors r and c. For at-most budgets (`<=` in place of `=`), `r` and `c` stay at most 1, that is, `u, v >= 0` for
the duals `u = -log(r) / tau`, `v = -log(c) / tau`.

Only additions, multiplications and divisions in a fixed order are used, so the plan is bitwise equal on every device
and in every batch. Tensors have tiles along the last axis: `[R, C, T]`.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from masksmith.patterns import TileSpec

SQUARINGS = 20
"""Number of squarings of `_exponential`."""
SMALLEST, LARGEST = 1e-140, 1e140
"""Limits of the scalings r and c, which diverge for tiles without a feasible plan; their products must stay finite."""


def entropic_plan(
    scores: torch.Tensor, tile: TileSpec, inverse_temperature: float, iterations: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a fixed number of projection cycles.

    Args:
        scores: `[R, C, T]` float64, at most 1.
        tile: Budgets.
        inverse_temperature: `tau`; larger values give plans closer to 0 and 1, and slower convergence.
        iterations: Cycles of three projections.

    Returns:
        `Z` `[R, C, T]`, and the column scalings `c` `[C, T]`. `Z` is not clamped, so that it also ranks the entries
        where the plan is 1.
    """
    kernel = _exponential(scores * inverse_temperature)
    r, c = torch.ones_like(kernel[:, 0]), torch.ones_like(kernel[0])
    for _ in range(iterations):
        plan = (kernel * r[:, None]).mul_(c).clamp_(max=1.0)
        rescaled = _scale(r, tile.row_keep / _sum(plan.unbind(1)), tile.at_most)
        plan.mul_((rescaled / r)[:, None])
        r, c = rescaled, _scale(c, tile.col_keep / _sum(plan.unbind(0)), tile.at_most)
    return (kernel * r[:, None]).mul_(c), c


def _exponential(x: torch.Tensor) -> torch.Tensor:
    """Approximate `exp(x)` by `(1 + x / 2^20)^(2^20)`: monotone, 2 % error at 200, bitwise equal on every device."""
    power = (x / float(1 << SQUARINGS)).add_(1.0)
    for _ in range(SQUARINGS):
        power.mul_(power)
    return power


def _sum(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """Add tensors one after the other, in the order given."""
    first, *rest = tensors
    total = first.clone()
    for tensor in rest:
        total.add_(tensor)
    return total


def _scale(scaling: torch.Tensor, factor: torch.Tensor, at_most: bool) -> torch.Tensor:
    return (scaling * factor).clamp_(SMALLEST, 1.0 if at_most else LARGEST)
