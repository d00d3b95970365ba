"""What a mask leaves of a weight, and the mask as bits: what a training step or a file wants of a solution."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from ._errors import ScoresError
from ._solution import Solution
from ._tensors import is_torch


def check_weight(weight: Any, scores: Any, name: str | None) -> None:
    """Refuse a weight that is not of the scores' shape.

    Raises:
        ScoresError: Naming both shapes.
    """
    if weight is not None and tuple(weight.shape) != tuple(scores.shape):
        shapes = f"{list(weight.shape)} differs from the scores' {list(scores.shape)}"
        raise ScoresError(f"the weight's shape {shapes}", name=name)


def carry(solution: Solution, weight: Any) -> Solution:
    """Give a solution that has `pruned` and `packed`, unless it has them or there is no weight."""
    if weight is None or solution.pruned is not None:
        return solution
    if is_torch(weight):
        return _carry_torch(solution, weight)
    mask = solution.mask.cpu().numpy() if is_torch(solution.mask) else solution.mask
    weight = np.asarray(weight)
    pruned = np.where(mask, weight, weight.dtype.type(0))
    return replace(solution, pruned=pruned, packed=np.packbits(mask, axis=-1, bitorder="little"))


def _carry_torch(solution: Solution, weight: Any) -> Solution:
    import torch

    mask = torch.as_tensor(solution.mask, device=weight.device)
    pruned = weight.detach().masked_fill(~mask, 0)
    return replace(solution, pruned=pruned, packed=_packed(mask))


def _packed(mask: Any) -> Any:
    """Pack a torch mask along its last axis, where it lives."""
    import torch

    width = mask.shape[-1]
    bits = torch.nn.functional.pad(mask.to(torch.uint8), (0, -width % 8)).reshape(
        *mask.shape[:-1], math.ceil(width / 8), 8
    )
    return (bits << torch.arange(8, dtype=torch.uint8, device=mask.device)).sum(-1, dtype=torch.uint8)
