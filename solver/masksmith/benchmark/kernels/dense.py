"""The baselines: torch's dense product (cuBLAS, MKL, oneDNN) with the unmasked weight, and with the masked one.

The latter shows what a mask buys without a sparse kernel, which is nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from masksmith.benchmark.declaration import Declaration, Support
from masksmith.benchmark.kernel import Operand, Packed, torch_obstacle

if TYPE_CHECKING:
    import torch

DTYPES = {"float32": (1, 1), "float16": (1, 1), "bfloat16": (1, 1), "float64": (1, 1)}


def pack_dense(matrix: torch.Tensor) -> Packed:
    """Keep a matrix as it is, in either of its contiguous layouts."""
    import torch

    turned = matrix.t().contiguous()
    ways = {
        "rows contiguous": lambda x: torch.nn.functional.linear(x, matrix),
        "columns contiguous": lambda x: torch.mm(x, turned),
    }
    return Packed(ways, matrix.numel() * matrix.element_size())


class Dense:
    """`X A^T` without any mask: what every other kernel has to beat."""

    declaration = Declaration(
        "dense", "torch's dense product, unmasked: the baseline", {"cpu": Support(DTYPES), "cuda": Support(DTYPES)}
    )

    def obstacle(self, device: str) -> str | None:
        """It needs torch alone."""
        return torch_obstacle()

    def pack(self, operand: Operand) -> Packed:
        """Keep the unmasked weight."""
        return pack_dense(operand.unmasked)


class DenseZeros(Dense):
    """`X A^T` where A holds its zeros."""

    declaration = Declaration(
        "dense-zeros", "torch's dense product, zeros included", {"cpu": Support(DTYPES), "cuda": Support(DTYPES)}
    )

    def pack(self, operand: Operand) -> Packed:
        """Keep the masked weight."""
        return pack_dense(operand.matrix)
