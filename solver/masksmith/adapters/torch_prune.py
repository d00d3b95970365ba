"""`torch.nn.utils.prune`: patterns as a pruning method, and masks from elsewhere."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils import prune

from masksmith._errors import ScoresError
from masksmith.patterns import Pattern, parse
from masksmith.solvers.base import Solver

from .calculator import keep_mask


class MaskPruning(prune.BasePruningMethod):
    """A pruning method that keeps the most score that a pattern allows.

    `MaskPruning.apply(module, "weight", "transposable 2:4")` leaves `weight_orig`, `weight_mask` and a hook that
    multiplies them, as all methods of torch do; `prune.remove(module, "weight")` makes it permanent. Scores are
    magnitudes, or `importance_scores=`. On top of an earlier pruning, entries dropped there count as 0 and stay
    dropped.

    Args:
        pattern: What is allowed.
        solver: The best one for the pattern unless given.
    """

    # torch hands "unstructured" methods a flat list of what is left; patterns need the whole tensor in its shape.
    PRUNING_TYPE = "global"

    def __init__(self, pattern: Pattern | str, solver: Solver | str | None = None) -> None:
        super().__init__()
        self.pattern = parse(pattern) if isinstance(pattern, str) else pattern
        self.solver = solver

    def compute_mask(self, t: torch.Tensor, default_mask: torch.Tensor) -> torch.Tensor:
        """Give the mask for a tensor of weights or scores, 1 = kept, in the dtype of `default_mask`."""
        left = default_mask != 0
        mask = keep_mask(t.detach().abs() * left, self.pattern, self.solver)
        chosen: torch.Tensor = (mask & left).to(default_mask.dtype)
        return chosen


def custom_from_mask(module: torch.nn.Module, mask: Any, name: str = "weight") -> torch.nn.Module:
    """Prune a module's parameter by a mask found before; the mask may be a numpy array, on any device.

    Args:
        module: Owner of the parameter.
        mask: Bool, True = kept, in the parameter's shape.
        name: The parameter.

    Raises:
        ScoresError: If the shapes differ.
    """
    parameter = getattr(module, name)
    chosen = torch.as_tensor(mask).to(parameter.device)
    if chosen.shape != parameter.shape:
        raise ScoresError(f"mask has shape {list(chosen.shape)}, the parameter {list(parameter.shape)}", name=name)
    pruned: torch.nn.Module = prune.custom_from_mask(module, name, chosen.to(parameter.dtype))  # type: ignore[no-untyped-call]
    return pruned
