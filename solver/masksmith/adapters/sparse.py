"""Conversion to torch's sparse tensors: semi-structured (2:4) and block compressed rows."""

from __future__ import annotations

import warnings

import torch

from masksmith._errors import MasksmithError, ScoresError
from masksmith._tensors import as_torch, with_zeros
from masksmith.measures import count
from masksmith.scores.operands import read_weight

Tensor = torch.Tensor


class DeviceError(MasksmithError, RuntimeError):
    """A sparse format is not available on this kind of device; the message names the kind that the format needs."""


def to_semi_structured(weight: Tensor, mask: Tensor) -> Tensor:
    """Set the dropped entries of a weight to zero, and compress it for 2:4 kernels.

    Args:
        weight: `[out, in]` on a CUDA device, float16, bfloat16 or int8; both dimensions multiples of 16 (int8: 32)
            for cuSPARSELt.
        mask: Bool, or numbers, as for `to_bsr`; at most 2 of every 4 entries along `in` are kept.

    Returns:
        `torch.sparse.to_sparse_semi_structured` of the weight with zeros; use it as the weight of a linear layer.

    Raises:
        ScoresError: If the shapes differ, the weight is not a dense matrix, or the mask is not 2:4 (torch does not
            check this).
        DeviceError: If the weight is not on a CUDA device; torch has such kernels for CUDA only.
    """
    masked = _masked(weight, mask)
    if not count(as_torch(mask) != 0).is_two_four:
        raise ScoresError("it keeps more than 2 entries of a group of 4 along the input dimension", name="mask")
    if masked.device.type != "cuda":
        raise DeviceError(f"semi-structured tensors need a CUDA device; the weight is on {masked.device}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*prototype stage", category=UserWarning)
        sparse: Tensor = torch.sparse.to_sparse_semi_structured(masked)
    return sparse


def to_bsr(weight: Tensor, mask: Tensor, block: tuple[int, int]) -> Tensor:
    """Set the dropped entries of a weight to zero, and compress it to block compressed rows.

    Blocks without a non-zero entry are not stored. On CPUs, products support float32 and float64 with square blocks; on
    CUDA devices, products need block sides that are powers of 2, at least 16.

    Args:
        weight: `[out, in]`.
        mask: Bool, True = kept; in a mask of numbers, all but 0 are kept.
        block: Rows and columns of a block; the weight's rows and columns must be multiples of them.

    Raises:
        ScoresError: If the shapes differ, the weight is not a dense matrix, or blocks do not cover it.
    """
    masked = _masked(weight, mask)
    if min(block) < 1 or weight.shape[0] % block[0] or weight.shape[1] % block[1]:
        raise ScoresError(f"blocks of {block[0]}x{block[1]} do not cover shape {list(weight.shape)}", name="weight")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*in beta state", category=UserWarning)
        sparse: Tensor = masked.to_sparse_bsr(block)
    return sparse


def _masked(weight: Tensor, mask: Tensor) -> Tensor:
    """Check the shapes, and return a copy of the weight with zeros in the dropped entries."""
    weight, mask = as_torch(read_weight(weight, "weight")), as_torch(read_weight(mask, "mask"))
    if weight.ndim != 2 or mask.shape != weight.shape:
        raise ScoresError(
            f"its shape is {list(weight.shape)}, the mask's {list(mask.shape)}; both must be matrices of one shape",
            name="weight",
        )
    masked: Tensor = with_zeros(weight, mask.to(weight.device) != 0, "weight").contiguous()
    return masked
