"""Compressed sparse rows through scipy: slow, portable, and independent of the other kernels: a cross-check."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from masksmith.benchmark.declaration import Declaration, Support
from masksmith.benchmark.kernel import Operand, Packed, torch_obstacle

if TYPE_CHECKING:
    import torch


class ScipyCsr:
    """Kernel for any mask, with one thread."""

    declaration = Declaration(
        "scipy-csr",
        "compressed sparse rows, scipy, one thread: a cross-check",
        {"cpu": Support({"float32": (1, 1), "float64": (1, 1)})},
    )

    def obstacle(self, device: str) -> str | None:
        """Return why the kernel cannot run, or None: it needs torch and scipy."""
        return torch_obstacle() if find_spec("scipy") else "it needs scipy: pip install 'masksmith[bench]'"

    def pack(self, operand: Operand) -> Packed:
        """Compress the weight to CSR."""
        import torch
        from scipy.sparse import csr_array

        weight = csr_array(operand.matrix.numpy())

        def run(x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(weight @ x.numpy().T).t().contiguous()

        size = weight.data.nbytes + weight.indices.nbytes + weight.indptr.nbytes
        return Packed({"product": run}, size)
