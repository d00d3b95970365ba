"""The exact solver on CUDA devices: the mask of the CPU, bit for bit, from tensors that never leave the device.

Sweeps run in shared memory, many tiles a block; what they leave goes on in further waves, and at last to the CPU's own
shortest-path code, compiled for the device. The host waits once, at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .facts import device_facts
from .jit import failures, reason_unusable

if TYPE_CHECKING:
    from masksmith._problem import Problem
    from masksmith._solution import Solution

__all__ = ["device_facts", "failures", "reason_unusable", "solve_on"]


def solve_on(device: str, problem: Problem) -> Solution:
    """Solve a problem on a CUDA device: see `solve.solve_on`."""
    from .solve import solve_on

    return solve_on(device, problem)
