"""2:4 on NVIDIA's sparse tensor cores through torch's cuSPARSELt support."""

from __future__ import annotations

from typing import TYPE_CHECKING

from masksmith.benchmark.declaration import Declaration, Support
from masksmith.benchmark.kernel import Operand, Packed, torch_obstacle

if TYPE_CHECKING:
    import torch

BATCH_MULTIPLE = 8
"""In each product, torch pads a batch of half precision to a multiple of this number; measured times include this."""
SLOW_VERSION = 800
"""cuSPARSELt 0.8.0, as torch numbers it; it is slow on some GPUs."""


class CuSparseLt:
    """Kernel for compressed 2:4 weights; its tuning searches the algorithm for a shape."""

    declaration = Declaration(
        "semi-structured-cusparselt",
        "2:4 on sparse tensor cores, through cuSPARSELt",
        {"cuda": Support({"float16": (16, 16), "bfloat16": (16, 16)})},
        "2:4",
        curve=("2:4",),
    )

    def obstacle(self, device: str) -> str | None:
        """Return why the kernel cannot run, or None: it needs an Ampere GPU or later, and a torch with cuSPARSELt."""
        missing = torch_obstacle()
        if missing is not None:
            return missing
        import torch

        if not torch.cuda.is_available():
            return "there is no CUDA device"
        if torch.cuda.get_device_capability(device) < (8, 0):
            return "the GPU has no sparse tensor cores: they came with compute capability 8.0"
        if not torch.backends.cusparselt.is_available():
            return "this torch was built without cuSPARSELt"
        return None

    def pack(self, operand: Operand) -> Packed:
        """Compress the weight, which is 2:4 already."""
        import torch
        from torch.sparse import SparseSemiStructuredTensorCUSPARSELT as SparseTensor

        # `compressed` is for the search in `tune`, and gives the size; the product uses the weight in the list, which
        # `tune` can replace.
        compressed = torch._cslt_compress(operand.matrix)
        weights = [SparseTensor.from_dense(operand.matrix)]
        version = torch.backends.cusparselt.version()
        notes = {"cusparselt": str(version)}
        if version == SLOW_VERSION:
            notes["warning"] = "cuSPARSELt 0.8.0 is slow on H100 and L4; 0.8.1 fixes it"

        def tune() -> dict[str, str]:
            algorithm = torch._cslt_sparse_mm_search(compressed, _padded(operand.sample).t())
            weights[0] = SparseTensor.from_dense(operand.matrix, alg_id=algorithm)
            return {"algorithm": str(algorithm)}

        size = compressed.numel() * compressed.element_size()
        return Packed({"linear": lambda x: torch.nn.functional.linear(x, weights[0])}, size, notes, tune)


def _padded(sample: torch.Tensor) -> torch.Tensor:
    """Add zero rows to a batch `[batch, cols]`, as torch does in the product."""
    import torch

    return torch.nn.functional.pad(sample, (0, 0, 0, -sample.shape[0] % BATCH_MULTIPLE))
