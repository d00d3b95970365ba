"""Functions and a callable class by which other pruning code can compute a mask from scores or weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from masksmith._solve import solve
from masksmith.layouts import Layout
from masksmith.patterns import Pattern
from masksmith.patterns.grammar import read_pattern
from masksmith.scores import magnitude
from masksmith.solvers.base import Solver


@dataclass(frozen=True)
class MaskCalculator:
    """A callable for `ASP.init_model_for_pruning(model, mask_calculator=...)` of apex.

    For a parameter, it returns a contiguous bool mask (True = kept) of the parameter's shape and device; apex copies
    the mask to a buffer. Groups run along the input channels of linear layers and convolutions, as in apex. Any pattern
    is supported, while the calculators of apex, such as `m4n2_2d_best`, have one pattern each.

    Attributes:
        pattern: Pattern of allowed masks, such as `"transposable 2:4"`.
        power: Exponent of the magnitudes.
        solver: Solver; by default the best one for the pattern.
        layout: How parameters are made of matrices, as in `masksmith.solve`; by default `[out, in, *kernel]`. A
            parameter does not show its layer, so layers that store it otherwise, such as `transformers.Conv1D`
            (`"in out"`), need another calculator.
    """

    pattern: Pattern | str
    power: float = 1.0
    solver: Solver | str | None = None
    layout: Layout | str | None = None

    def __post_init__(self) -> None:
        # Parsed only to raise the errors of malformed patterns and layouts now, before the first mask is computed.
        read_pattern(self.pattern)
        Layout.of(self.layout)

    def __call__(self, weight: Any) -> Any:
        """Return the mask of a weight, True = kept."""
        return keep_mask(magnitude(weight, self.power), self.pattern, self.solver, self.layout)


def keep_mask(
    scores: Any, pattern: Pattern | str, solver: Solver | str | None = None, layout: Layout | str | None = None
) -> Any:
    """Return the solver's mask for scores, True = kept, of the same shape, library and device.

    Args:
        scores: Finite and non-negative, `[out, in, *kernel]`.
        pattern: Pattern of allowed masks.
        solver: Solver; by default the best one for the pattern.
        layout: How the scores are made of matrices, if not as above, as in `masksmith.solve`: such as `"in out"`.

    Raises:
        MasksmithError: As `masksmith.solve`.
    """
    return solve(scores, pattern, solver, layout=layout).mask


def drop_mask(
    scores: Any, pattern: Pattern | str, solver: Solver | str | None = None, layout: Layout | str | None = None
) -> Any:
    """Return the opposite of `keep_mask`, True = dropped, as `W_mask` in Wanda's code and `mask1` in SparseGPT's.

    In Wanda's code, `W[drop_mask(W_metric, "2:4")] = 0` replaces the loop over groups. In the code of both, `prune_n`
    counts zeros: `prune_n=4, prune_m=16` is `NM.from_zeros(4, 16)`, the pattern 12:16.
    """
    return ~keep_mask(scores, pattern, solver, layout)
