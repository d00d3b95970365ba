"""The baselines: torch's dense product (cuBLAS, MKL, oneDNN) with the unmasked weight, and with the masked weight.

The masked weight shows that a mask without a sparse kernel saves no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from masksmith.benchmark.declaration import Declaration, Support
from masksmith.benchmark.kernel import Operand, Packed, torch_obstacle

if TYPE_CHECKING:
    import torch

DTYPES = {"float32": (1, 1), "float16": (1, 1), "bfloat16": (1, 1), "float64": (1, 1)}
"""All dtypes of benchmarks, each with any number of rows and columns; see `Support`."""


def pack_dense(matrix: torch.Tensor) -> Packed:
    """Pack a matrix for two implementations of the dense product: stored in row-major and in column-major order."""
    import torch

    transposed = matrix.t().contiguous()
    implementations = {
        "rows contiguous": lambda x: torch.nn.functional.linear(x, matrix),
        "columns contiguous": lambda x: torch.mm(x, transposed),
    }
    return Packed(implementations, matrix.numel() * matrix.element_size())


class Dense:
    """`X A^T` without a mask: the baseline of all speed-ups."""

    declaration = Declaration(
        "dense", "torch's dense product, unmasked: the baseline", {"cpu": Support(DTYPES), "cuda": Support(DTYPES)}
    )

    def obstacle(self, device: str) -> str | None:
        """Return why the kernel cannot run, or None: it needs torch alone."""
        return torch_obstacle()

    def pack(self, operand: Operand) -> Packed:
        """Pack the unmasked weight."""
        return pack_dense(operand.unmasked)


class DenseZeros(Dense):
    """`X A^T` with the masked A stored densely."""

    declaration = Declaration(
        "dense-zeros", "torch's dense product, zeros included", {"cpu": Support(DTYPES), "cuda": Support(DTYPES)}
    )

    def pack(self, operand: Operand) -> Packed:
        """Pack the masked weight."""
        return pack_dense(operand.matrix)
