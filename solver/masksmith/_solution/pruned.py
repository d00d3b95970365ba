"""Adds the pruned weight, and the mask as packed bits, to a solution."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from masksmith._tensors import as_torch, is_torch, with_zeros

from .solution import Solution


def with_pruned_and_packed(solution: Solution, weight: Any) -> Solution:
    """Return the solution with `pruned` and `packed`; unchanged if it has both already, or `weight` is None."""
    if weight is None or solution.pruned is not None:
        return solution
    if is_torch(weight):
        return _with_pruned_and_packed_torch(solution, weight)
    mask = solution.mask.cpu().numpy() if is_torch(solution.mask) else solution.mask
    weight = np.asarray(weight)
    pruned = np.where(mask, weight, weight.dtype.type(0))
    return replace(solution, pruned=pruned, packed=np.packbits(mask, axis=-1, bitorder="little"))


def _with_pruned_and_packed_torch(solution: Solution, weight: Any) -> Solution:
    mask = as_torch(solution.mask).to(weight.device)
    return replace(solution, pruned=with_zeros(weight, mask), packed=_pack_bits(mask))


def _pack_bits(mask: Any) -> Any:
    """Pack a torch mask along its last axis, on its device, lowest bit first."""
    import torch

    width = mask.shape[-1]
    bits = torch.nn.functional.pad(mask.to(torch.uint8), (0, -width % 8)).reshape(
        *mask.shape[:-1], math.ceil(width / 8), 8
    )
    return (bits << torch.arange(8, dtype=torch.uint8, device=mask.device)).sum(-1, dtype=torch.uint8)
