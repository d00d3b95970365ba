"""The dense product with the masked weight: what a mask buys without a sparse kernel, which is nothing."""

from __future__ import annotations

from masksmith.benchmark.declaration import Declaration, Support
from masksmith.benchmark.kernel import Operand, Packed

from .dense import DTYPES, pack_dense


class DenseZeros:
    """`X A^T` where A holds its zeros."""

    declaration = Declaration(
        "dense-zeros", "torch's dense product, zeros included", {"cpu": Support(DTYPES), "cuda": Support(DTYPES)}
    )

    def obstacle(self, device: str) -> str | None:
        """There is none."""
        return None

    def pack(self, operand: Operand) -> Packed:
        """Keep the masked weight."""
        return pack_dense(operand.matrix)
