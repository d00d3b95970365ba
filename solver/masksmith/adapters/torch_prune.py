"""Adapters for `torch.nn.utils.prune`: a pruning method for patterns, and pruning by an existing mask."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils import prune

from masksmith._errors import ScoresError
from masksmith._tensors import as_torch
from masksmith.layouts import Layout, LayoutError, is_transformers_conv1d
from masksmith.layouts.convolutions import GROUPED_TRANSPOSED, TRANSPOSED_AXES
from masksmith.patterns import Pattern
from masksmith.patterns.grammar import read_pattern
from masksmith.scores.operands import read_weight
from masksmith.solvers.base import Solver

from .calculator import keep_mask

TIE_SHARE, SMALLEST_TIE = 2.0**-20, 2.0**-900
"""Share of the smallest positive score that entries with score 0 get after an earlier pruning; and its lower limit."""


class MaskPruning(prune.BasePruningMethod):
    """A pruning method that keeps the entries with the largest sum of scores among the masks that a pattern allows.

    `MaskPruning.apply(module, "weight", "transposable 2:4")` adds `weight_orig`, `weight_mask` and a hook that
    multiplies them, like all methods of torch; `prune.remove(module, "weight")` makes the pruning permanent. Scores are
    the absolute values of the weights, or of `importance_scores=` if they are given. Entries that an earlier
    pruning dropped have score 0 and stay dropped.

    Groups run along the inputs that the module's product sums over, which its class shows: also in transposed
    convolutions and in `transformers.Conv1D`, whose weights are `[in, out, *kernel]`. Parameters of other modules are
    taken for matrices `[out, in]`; pass `layout=` where they are not.

    Args:
        pattern: Pattern of allowed masks.
        solver: Solver; by default the best one for the pattern.
        layout: How the parameter is made of matrices, as in `masksmith.solve`; `apply` finds it by default.
    """

    # Patterns need the whole tensor. After an earlier pruning, torch passes the whole tensor only to "global" methods;
    # "unstructured" ones get a flat list of the remaining entries, "structured" ones the remaining channels.
    PRUNING_TYPE = "global"

    def __init__(
        self, pattern: Pattern | str, solver: Solver | str | None = None, *, layout: Layout | str | None = None
    ) -> None:
        super().__init__()
        self.pattern = read_pattern(pattern)
        self.solver = solver
        self.layout = Layout.of(layout)

    @classmethod
    def apply(cls, module: torch.nn.Module, name: str, *args: Any, **kwargs: Any) -> Any:
        """Prune a parameter of a module, as `BasePruningMethod.apply`, with the layout that the module's class shows.

        Raises:
            LayoutError: If the class does not show how the parameter is made of matrices, and `layout=` is missing.
        """
        if kwargs.get("layout") is None:
            layout = _module_layout(module, name)
            kwargs = kwargs if layout is None else {**kwargs, "layout": layout}
        return super().apply(module, name, *args, **kwargs)  # type: ignore[no-untyped-call]

    def compute_mask(self, t: torch.Tensor, default_mask: torch.Tensor) -> torch.Tensor:
        """Return the mask for a tensor of weights or scores, 1 = kept, in the dtype of `default_mask`.

        `default_mask` is the mask of earlier prunings; without them, all its entries are 1.
        """
        remaining = default_mask != 0
        mask = keep_mask(_remaining_scores(t.detach().abs(), remaining), self.pattern, self.solver, self.layout)
        new_mask: torch.Tensor = (mask & remaining).to(default_mask.dtype)
        return new_mask


def custom_from_mask(module: torch.nn.Module, mask: Any, name: str = "weight") -> torch.nn.Module:
    """Prune a module's parameter by an existing mask, a numpy array or a tensor on any device; return the module.

    Args:
        module: Module that has the parameter.
        mask: Bool, True = kept, in the parameter's shape; in a mask of numbers, all but 0 are kept.
        name: Name of the parameter.

    Raises:
        ScoresError: If the shapes differ, or the mask is no dense array of real numbers.
    """
    parameter = getattr(module, name)
    mask_on_device = as_torch(read_weight(mask, "mask")).to(parameter.device)
    if mask_on_device.shape != parameter.shape:
        raise ScoresError(
            f"mask has shape {list(mask_on_device.shape)}, the parameter {list(parameter.shape)}", name=name
        )
    pruned: torch.nn.Module = prune.custom_from_mask(module, name, (mask_on_device != 0).to(parameter.dtype))  # type: ignore[no-untyped-call]
    return pruned


def _remaining_scores(scores: torch.Tensor, remaining: torch.Tensor) -> torch.Tensor:
    """Return scores in which every entry of an earlier mask exceeds the dropped ones, whose scores are 0.

    Entries of that mask with score 0 would tie with dropped ones, and lose their places to them. They get a score so
    small that it decides between such masks alone.
    """
    is_tied = remaining & (scores == 0)
    if bool(remaining.all()) or not bool(is_tied.any()):
        return scores * remaining
    scores = scores.double() * remaining
    positive = scores[scores > 0]
    smallest = float(positive.min()) * TIE_SHARE if len(positive) else 1.0
    return scores.masked_fill(is_tied, max(smallest, SMALLEST_TIE))


def _module_layout(module: torch.nn.Module, name: str) -> Layout | None:
    """Return the layout of a module's parameter; None if it is `[out, in]`, `[out, in, *kernel]`, or no matrix.

    Raises:
        LayoutError: If no layout describes it, or none is known.
    """
    parameter = getattr(module, name, None)
    dimensions = parameter.ndim if isinstance(parameter, torch.Tensor) else 0
    if isinstance(module, torch.nn.modules.conv._ConvTransposeNd) and name == "weight":
        if module.groups > 1:
            raise LayoutError(f"{name!r}: {GROUPED_TRANSPOSED}, which no layout describes")
        return Layout(TRANSPOSED_AXES[:dimensions], rule="model")
    if is_transformers_conv1d(module) and name == "weight" and dimensions == 2:
        return Layout(("in", "out"), rule="model")
    if dimensions > 2 and not isinstance(module, torch.nn.modules.conv._ConvNd):
        advice = "pass layout=, such as 'stack out in' or 'out in kernel'"
        raise LayoutError(
            f"{name!r} has {dimensions} dimensions, and {type(module).__name__} does not show which is which: {advice}"
        )
    return None
