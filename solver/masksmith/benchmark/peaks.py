"""Measured peak rates of the device: bytes copied and floating-point operations per second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .cases import Case
from .cuda_clock import CudaClock
from .host_clock import HostClock

Clock = HostClock | CudaClock
ROUNDS = 5
"""Number of rounds; the fastest one gives the rate."""
SIZES = {"cpu": (2**26, 512), "cuda": (2**30, 8192)}
"""Bytes to copy, and side of the square matrices, by kind of device."""


@dataclass(frozen=True)
class Peaks:
    """Measured rates.

    Attributes:
        bytes_per_s: Bytes read plus bytes written, per second, while a large array is copied.
        flops_per_s: Floating-point operations per second, in a large dense product of one dtype.
    """

    bytes_per_s: float
    flops_per_s: float

    def least_s(self, case: Case, work_share: float, weight_bytes: int) -> float:
        """Return a lower bound on the seconds of a case, by arithmetic and by memory traffic (roofline model).

        Args:
            case: The case.
            work_share: Operations that the kernel needs, divided by those of the dense product.
            weight_bytes: Bytes of the packed weight.
        """
        rows, cols = case.matrix
        item_bytes = int(getattr(torch, case.dtype).itemsize)
        flops = 2 * case.batch * rows * cols * work_share
        moved_bytes = weight_bytes + case.batch * (rows + cols) * item_bytes
        return max(flops / self.flops_per_s, moved_bytes / self.bytes_per_s)


def measure(device: str, dtype: str, clock: Clock) -> Peaks:
    """Measure the rates of a device; `flops_per_s` is measured in `dtype`, `bytes_per_s` does not depend on it."""
    size, side = SIZES[device.partition(":")[0]]
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    a = torch.randn((side, side), device=device).to(getattr(torch, dtype))
    out = torch.empty_like(a)
    copy_s = _fastest_s(lambda: target.copy_(source), clock)
    product_s = _fastest_s(lambda: torch.mm(a, a, out=out), clock)
    return Peaks(2 * size / copy_s, 2 * side**3 / product_s)


def _fastest_s(run: Callable[[], object], clock: Clock) -> float:
    """Return the shortest time of all rounds: of a replay of the CUDA graph if there is one, else of a call."""
    eager, graph = clock.time({"run": run}, ROUNDS)
    return min((graph or eager)["run"])
