"""Operands of a case: a random weight, its best mask or a user's mask, activations; and their product in float64."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import masksmith as ms
from masksmith._arrays import read_array

from .cases import Case
from .declaration import block_size, row_budget
from .errors import BenchmarkError
from .kernel import Operand

UNIT_ROUNDOFFS = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Largest relative error of rounding to each dtype."""
SUM_ROUNDOFFS = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-24, "bfloat16": 2.0**-24}
"""Largest relative error of rounding to the dtype in which products of each dtype are summed: at least float32."""
UNDERFLOWS = {"float64": 2.0**-1022, "float32": 2.0**-126, "float16": 2.0**-25, "bfloat16": 2.0**-126}
"""Largest absolute error of rounding a product below the normal numbers of each dtype.

Half the smallest subnormal number for float16; the smallest normal number for the others, because kernels may replace
subnormal numbers of float32 by 0.
"""
OUTPUT_ROUNDINGS = 8
"""Number of roundings to the output's dtype that a kernel may make, since some kernels add partial sums in it."""


@dataclass(frozen=True)
class Reference:
    """The product `X A^T` in float64, and the largest rounding error that a kernel may make.

    Attributes:
        product: The product of the operands as rounded to their dtype.
        allowance: Bound on the rounding error of each entry: `|X| |A|^T` times a relative error. The relative error is
            that of a sum of as many terms as the fullest row of A has non-zero entries, plus that of
            `OUTPUT_ROUNDINGS` roundings to the dtype of the output. The absolute errors of as many roundings of numbers
            below the dtype's normal numbers are added.
    """

    product: torch.Tensor
    allowance: torch.Tensor

    def error(self, result: torch.Tensor) -> float:
        """Return the largest error relative to the allowance; rounding cannot explain an error above 1.

        Infinity if the shape is wrong or a value is NaN.
        """
        if result.shape != self.product.shape:
            return float("inf")
        errors = (result.to(torch.float64) - self.product).abs() / self.allowance
        return float(torch.nan_to_num(errors, nan=float("inf")).max())


def weight_and_mask(case: Case, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a normal weight `[rows, cols]` and compute its best mask by magnitude.

    The time of kernels depends on shapes and positions, not on values: a trained weight would give the same times.
    """
    text = f"{case.layer.shape} {case.pattern} {seed}"
    generator = np.random.default_rng(zlib.crc32(text.encode()))
    weight = generator.standard_normal((case.layer.rows, case.layer.cols), dtype=np.float32)
    return weight, np.asarray(ms.solve(ms.magnitude(weight), case.rule, threads=1).mask)


def check_mask(mask: Any, case: Case) -> np.ndarray:
    """Check a user's mask, and return it as a matrix of bools: dimensions after the first are joined.

    Raises:
        BenchmarkError: If it is no array of a dtype of masks, its shape is not the layer's, or it violates the pattern.
    """
    name, shape = case.layer.name, (case.layer.rows, case.layer.cols)
    matrix = read_array(mask, lambda reason: BenchmarkError("invalid_mask", f"mask {name!r}: {reason}")) != 0
    matrix = matrix.cpu().numpy() if isinstance(matrix, torch.Tensor) else matrix
    matrix = matrix.reshape(matrix.shape[0], -1) if matrix.ndim > 1 else matrix
    if matrix.shape != shape:
        raise BenchmarkError("invalid_mask", f"mask {name!r} has shape {list(matrix.shape)}, the layer {list(shape)}")
    verdict = ms.verify(matrix, case.rule)
    if not verdict:
        raise BenchmarkError("invalid_mask", f"mask {name!r} does not match its pattern: {verdict.message}")
    return matrix


def make_operand(
    case: Case, weight: np.ndarray, mask: np.ndarray, device: str, threads: int, seed: int
) -> tuple[Operand, torch.Tensor]:
    """Mask a case's weight, draw activations, and put both on the device.

    Returns:
        The operand, whose activations are for tuning, and another batch of activations for the measurement.
    """
    dtype = getattr(torch, case.dtype)
    unmasked = torch.from_numpy(weight).to(device=device, dtype=dtype)
    masked = unmasked * torch.from_numpy(mask).to(device)
    if case.direction == "backward":
        unmasked, masked = unmasked.t().contiguous(), masked.t().contiguous()
    generator = torch.Generator().manual_seed(seed)
    shape = (case.batch, case.matrix[1])
    sample, x = (torch.randn(shape, generator=generator).to(device=device, dtype=dtype) for _ in range(2))
    rule = case.rule
    budget, block = row_budget(rule, case.direction), block_size(rule, case.direction)
    return Operand(masked, unmasked, sample, budget, block, threads), x


def reference(matrix: torch.Tensor, x: torch.Tensor, dtype: str) -> Reference:
    """Return the product `X A^T` of activations `x` and a matrix A in float64, with the allowance for rounding errors.

    `dtype` is that of the operands and of the product that a kernel returns.
    """
    wide_x, wide_matrix = x.to(torch.float64), matrix.to(torch.float64)
    terms = int((matrix != 0).sum(dim=1).max())
    # Each term is rounded at most `terms` times, as a product and in sums; 2 is a margin.
    relative_error = (terms + 2) * SUM_ROUNDOFFS[dtype] + OUTPUT_ROUNDINGS * UNIT_ROUNDOFFS[dtype]
    allowance = (wide_x.abs() @ wide_matrix.abs().t()) * relative_error + OUTPUT_ROUNDINGS * UNDERFLOWS[dtype]
    # With float64, an error divided by the allowance must not overflow.
    return Reference(wide_x @ wide_matrix.t(), allowance.clamp_min(1e-300))
