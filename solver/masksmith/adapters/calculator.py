"""Scores or weights in, a mask out: the one step that pruning code asks others for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from masksmith._solve import solve
from masksmith.patterns import Pattern, parse
from masksmith.scores import magnitude
from masksmith.solvers.base import Solver


@dataclass(frozen=True)
class MaskCalculator:
    """A callable for `ASP.init_model_for_pruning(model, mask_calculator=...)` of apex: a weight in, its mask out.

    Called with a parameter, gives a contiguous bool mask (True = kept) of its shape on its device, which apex puts into
    its buffer. Groups run along the input channels of linear layers and convolutions, as apex's own do; unlike
    `m4n2_2d_best`, any pattern will do.

    Attributes:
        pattern: What is allowed, such as `"transposable 2:4"`.
        power: Of the magnitudes that are kept.
        solver: The best one for the pattern unless given.
    """

    pattern: Pattern | str
    power: float = 1.0
    solver: Solver | str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.pattern, str):
            parse(self.pattern)

    def __call__(self, weight: Any) -> Any:
        """Give the keep mask of a weight, of its shape."""
        return keep_mask(magnitude(weight, self.power), self.pattern, self.solver)


def keep_mask(scores: Any, pattern: Pattern | str, solver: Solver | str | None = None) -> Any:
    """Give the best mask for scores, True = kept, in their shape, library and device.

    Args:
        scores: Finite and non-negative, `[out, in, *kernel]`.
        pattern: What is allowed.
        solver: The best one for the pattern unless given.

    Raises:
        As `masksmith.solve` does.
    """
    return solve(scores, pattern, solver).mask


def drop_mask(scores: Any, pattern: Pattern | str, solver: Solver | str | None = None) -> Any:
    """Give the same mask with True = dropped: the `W_mask` of Wanda's code, the `mask1` of SparseGPT's.

    In both, `W[drop_mask(W_metric, "2:4")] = 0` takes the place of the loop over groups; mind that their `prune_n`
    counts zeros, so that `prune_n=4, prune_m=16` is `NM.from_zeros(4, 16)`, the pattern 12:16.
    """
    return ~keep_mask(scores, pattern, solver)
