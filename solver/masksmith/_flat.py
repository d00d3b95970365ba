"""The other view of a convolution: `[out, in * kh * kw]`, the way the bytes lie, instead of channel last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from ._errors import SolverError
from ._solution import Solution

View = Literal["channels-last", "flat"]
MASKS = ("must_keep", "must_drop", "warm_start")


def flat(tensor: Any) -> Any:
    """Give a weight, or anything of its shape, as the matrix `[out, everything else]`, in the order of its own dims."""
    return tensor if tensor is None or len(tensor.shape) <= 2 else tensor.reshape(tensor.shape[0], -1)


def check_view(view: str) -> None:
    """Refuse a view that is none.

    Raises:
        SolverError: Naming it.
    """
    if view not in ("channels-last", "flat"):
        raise SolverError(f"view={view!r} is not one of: channels-last, flat")


def moved(value: Any) -> Any:
    """Give a mask, or the mask of a solution, as such a matrix."""
    return replace(value, mask=flat(value.mask)) if isinstance(value, Solution) else flat(value)


def shaped(solution: Solution, weight: Any) -> Solution:
    """Give the mask the weight's shape again."""
    return replace(solution, mask=solution.mask.reshape(tuple(weight.shape)))


def solve_flat(solve: Callable[..., Solution], scores: Any, options: dict[str, Any]) -> Solution:
    """Solve the flat matrix of a weight; the mask comes back in the weight's shape."""
    matrices = {name: moved(value) if name in MASKS else value for name, value in options.items()}
    return shaped(solve(flat(scores), **matrices), scores)
