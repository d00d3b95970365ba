"""Block-compressed sparse rows through torch: MKL on CPUs, Triton on GPUs, tuned per shape."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from masksmith.benchmark.declaration import Declaration, Support
from masksmith.benchmark.kernel import Operand, Packed, torch_obstacle

from .csr import ANY_SHAPE, compressed_bytes, mkl_obstacle, transposing_products

if TYPE_CHECKING:
    import torch


class Bsr:
    """Kernel for block patterns."""

    declaration = Declaration(
        "bsr",
        "block-compressed sparse rows, torch: MKL on CPUs, Triton (tuned) on GPUs",
        {
            "cpu": Support({"float32": ANY_SHAPE, "float64": ANY_SHAPE}, square=True),
            "cuda": Support(
                {"float16": ANY_SHAPE, "bfloat16": ANY_SHAPE, "float32": ANY_SHAPE}, least_block=16, power_of_two=True
            ),
        },
        "block",
        curve=("block 16x16 50%", "block 16x16 25%", "block 16x16 10%", "block 16x16 5%"),
    )

    def obstacle(self, device: str) -> str | None:
        """Return why the kernel cannot run, or None: it needs torch, with MKL on CPUs and Triton on GPUs."""
        missing = torch_obstacle()
        if missing is not None or device == "cpu":
            return missing or mkl_obstacle()
        from torch.utils._triton import has_triton

        return None if has_triton() else "there is no Triton for this GPU"

    def pack(self, operand: Operand) -> Packed:
        """Compress the weight; on a GPU, the product is fast only after `Packed.tune` has been called."""
        import torch

        assert operand.block is not None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse (BSR|CSR) tensor support")
            weight = operand.matrix.to_sparse_bsr(operand.block)
        size = compressed_bytes(weight)
        if operand.matrix.device.type == "cpu":
            return Packed(transposing_products(weight), size)
        implementations = {"linear": lambda x: torch.nn.functional.linear(x, weight)}
        return Packed(implementations, size, tune=lambda: {"tuned": _tune(weight, operand.sample)})


def _tune(weight: torch.Tensor, sample: torch.Tensor) -> str:
    """Let torch search launch parameters for this shape, and store them for this process; return them as text."""
    import torch
    from torch.sparse._triton_ops_meta import tune_bsr_dense_addmm

    shape = (weight.shape[0], sample.shape[0])
    out = torch.zeros(shape, dtype=sample.dtype, device=sample.device)
    tune: Any = tune_bsr_dense_addmm
    parameters = tune(out, weight, sample.t(), beta=0, store=True)
    return ", ".join(f"{name} {value}" for name, value in sorted(parameters.items()))
