"""2:4 on NVIDIA's sparse tensor cores through torch's CUTLASS kernels, for Ampere and Ada only."""

from __future__ import annotations

from masksmith.benchmark.declaration import Declaration, Support
from masksmith.benchmark.kernel import Operand, Packed, torch_obstacle

COMPUTE_MAJOR = 8
"""Major number of the compute capability that these kernels need."""


class Cutlass:
    """Kernel for compressed 2:4 weights with separate metadata."""

    declaration = Declaration(
        "semi-structured-cutlass",
        "2:4 on sparse tensor cores, through CUTLASS (compute capability 8.x)",
        {"cuda": Support({"float16": (32, 64), "bfloat16": (32, 64)})},
        "2:4",
        curve=("2:4",),
    )

    def obstacle(self, device: str) -> str | None:
        """Return why the kernel cannot run, or None: torch compiles it for compute capability 8.x only."""
        missing = torch_obstacle()
        if missing is not None:
            return missing
        import torch

        if not torch.cuda.is_available():
            return "there is no CUDA device"
        major, minor = torch.cuda.get_device_capability(device)
        if major != COMPUTE_MAJOR:
            return f"torch's CUTLASS kernels are for compute capability 8.x, this GPU has {major}.{minor}"
        return None

    def pack(self, operand: Operand) -> Packed:
        """Compress the weight to 2:4."""
        import torch
        from torch.sparse import SparseSemiStructuredTensorCUTLASS as Compressed

        weight = Compressed.from_dense(operand.matrix)
        parts = [part for part in (weight.packed, weight.meta) if part is not None]
        size = sum(part.numel() * part.element_size() for part in parts)
        return Packed({"linear": lambda x: torch.nn.functional.linear(x, weight)}, size)
