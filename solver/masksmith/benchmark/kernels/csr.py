"""Compressed sparse rows through torch: MKL on CPUs, cuSPARSE on GPUs."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from masksmith.benchmark.declaration import Declaration, Support
from masksmith.benchmark.kernel import Operand, Packed, torch_obstacle

if TYPE_CHECKING:
    import torch

    from masksmith.benchmark.kernel import Product

ANY_SHAPE = (1, 1)
"""No constraint: rows and columns are multiples of 1."""


class Csr:
    """Kernel for any mask."""

    declaration = Declaration(
        "csr",
        "compressed sparse rows, torch: MKL on CPUs, cuSPARSE on GPUs",
        {
            "cpu": Support({"float32": ANY_SHAPE, "float64": ANY_SHAPE}),
            "cuda": Support({"float32": ANY_SHAPE, "float16": ANY_SHAPE, "bfloat16": ANY_SHAPE, "float64": ANY_SHAPE}),
        },
        curve=("50%", "25%", "10%", "5%", "2%"),
    )

    def obstacle(self, device: str) -> str | None:
        """Return why the kernel cannot run on the device, or None.

        On CPUs it needs MKL: without it, torch uses a slow loop.
        """
        return torch_obstacle() or (mkl_obstacle() if device == "cpu" else None)

    def pack(self, operand: Operand) -> Packed:
        """Compress the weight to CSR."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
            weight = operand.matrix.to_sparse_csr()
        weight = _with_32_bit_indices(weight)
        return Packed(transposing_products(weight), compressed_bytes(weight))


def mkl_obstacle() -> str | None:
    """Return a message if this torch has no MKL, else None."""
    import torch

    has_mkl: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    return None if has_mkl else "this torch was built without MKL"


def transposing_products(weight: torch.Tensor) -> dict[str, Product]:
    """Return two implementations of `X A^T` as `(A X^T)^T`: torch needs the sparse matrix on the left."""
    import torch

    return {
        "activations row-major": lambda x: torch.mm(weight, x.t()).t().contiguous(),
        "activations transposed": lambda x: torch.mm(weight, x.t().contiguous()).t().contiguous(),
    }


def compressed_bytes(weight: torch.Tensor) -> int:
    """Return the bytes of values and indices."""
    parts = (weight.values(), weight.crow_indices(), weight.col_indices())
    return sum(part.numel() * part.element_size() for part in parts)


def _with_32_bit_indices(weight: torch.Tensor) -> torch.Tensor:
    """Store indices in 32 bits, which MKL and cuSPARSE both read."""
    import torch

    return torch.sparse_csr_tensor(
        weight.crow_indices().to(torch.int32),
        weight.col_indices().to(torch.int32),
        weight.values(),
        weight.shape,
        check_invariants=False,
    )
