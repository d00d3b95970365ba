"""The exact solver on CUDA devices; masks equal those of the CPU bit for bit, and tensors stay on the device.

Dual coordinate ascent runs in shared memory, many tiles per block. Unsolved tiles continue in further passes, and
finally in the CPU's shortest-path code, compiled for the device. The host synchronises once, at the end.
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
