"""Where kernels work: tensors on the device (or, in the simulator, in memory), and launches on torch's own stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .jit import SIMULATED, cuda, simulated


@dataclass(frozen=True)
class Launcher:
    """Allocates on one device, and launches kernels there."""

    at: torch.device

    def zeros(self, *shape: int, dtype: torch.dtype = torch.int64, fill: float = 0) -> torch.Tensor:
        """Allocate, filled with one number."""
        return torch.full(shape, fill, dtype=dtype, device=self.at)

    def empty(self, *shape: int, dtype: torch.dtype) -> torch.Tensor:
        """Allocate, filled with anything."""
        return torch.empty(shape, dtype=dtype, device=self.at)

    def launch(self, kernel: Any, blocks: Any, threads: Any, *arguments: Any) -> None:
        """Launch a kernel behind whatever torch has queued; tensors become arrays."""
        arrays = [_array(argument) if isinstance(argument, torch.Tensor) else argument for argument in arguments]
        if SIMULATED:
            kernel[blocks, threads](*arrays)
            return
        stream = cuda.external_stream(torch.cuda.current_stream(self.at).cuda_stream)
        kernel[blocks, threads, stream](*arrays)

    @property
    def label(self) -> str:
        """What reports call it."""
        return "cuda (simulated)" if SIMULATED else str(self.at)

    @property
    def name(self) -> str:
        """Its model."""
        return "numba's CUDA simulator" if SIMULATED else torch.cuda.get_device_name(self.at)


def _array(tensor: torch.Tensor) -> Any:
    raw = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
    raw = raw.view(torch.uint8) if raw.dtype == torch.bool else raw
    return simulated(raw.numpy()) if SIMULATED else cuda.as_cuda_array(raw)
