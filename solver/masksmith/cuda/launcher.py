"""Allocates tensors on one device (in the simulator: in host memory) and launches kernels on torch's current stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .jit import SIMULATED, cuda, simulated


@dataclass(frozen=True)
class Launcher:
    """Allocates tensors on a device and launches kernels there."""

    device: torch.device

    def zeros(self, *shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        """Allocate a tensor of zeros, int64 by default."""
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def filled(self, *shape: int, value: int) -> torch.Tensor:
        """Allocate an int64 tensor with one value in every entry."""
        return torch.full(shape, value, dtype=torch.int64, device=self.device)

    def empty(self, *shape: int, dtype: torch.dtype) -> torch.Tensor:
        """Allocate an uninitialised tensor."""
        return torch.empty(shape, dtype=dtype, device=self.device)

    def launch(self, kernel: Any, blocks: Any, threads: Any, *arguments: Any) -> None:
        """Queue a kernel on torch's current stream, or run it in the simulator; tensors are passed without a copy.

        Does nothing for 0 blocks, which the driver refuses.
        """
        if blocks == 0:
            return
        arrays = [_array(argument) if isinstance(argument, torch.Tensor) else argument for argument in arguments]
        if SIMULATED:
            kernel[blocks, threads](*arrays)
            return
        stream = cuda.external_stream(torch.cuda.current_stream(self.device).cuda_stream)
        kernel[blocks, threads, stream](*arrays)

    @property
    def label(self) -> str:
        """Name of the device in statistics and reports."""
        return "cuda (simulated)" if SIMULATED else str(self.device)

    @property
    def name(self) -> str:
        """Model name of the device."""
        return "numba's CUDA simulator" if SIMULATED else torch.cuda.get_device_name(self.device)


def _array(tensor: torch.Tensor) -> Any:
    """Return a tensor as an array for kernels, on the same memory: bfloat16 as int16, and bool as uint8."""
    raw = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
    raw = raw.view(torch.uint8) if raw.dtype == torch.bool else raw
    return simulated(raw.numpy()) if SIMULATED else cuda.as_cuda_array(raw)
