"""The one door to numba-cuda: which functions become kernels, and whether any can run here."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from numba import config

from masksmith.kernels.jit import COMPILED

cuda: Any = import_module("numba.cuda")
"""The target; the simulator looks for it among the names of a kernel's module."""
SIMULATED: bool = bool(config.ENABLE_CUDASIM)  # type: ignore[attr-defined]
"""Whether kernels run in numba's simulator, on numpy arrays; it needs NUMBA_DISABLE_JIT=1 too."""


def kernel(function: Callable[..., None]) -> Any:
    """Compile a kernel for the device, without fast-math, at its first launch."""
    return cuda.jit(function)


def device(function: Callable[..., Any]) -> Any:
    """Compile a function that kernels call."""
    return cuda.jit(device=True)(function)


def _narrow_plain(value: Any) -> Any:
    return np.int32((int(value) + 2**31) % 2**32 - 2**31)


def _narrow(value: Any) -> Any:
    return np.int32(value)


narrow: Any = _narrow_plain if SIMULATED else device(_narrow)
"""Cut an integer to 32 bits, as registers do."""


def simulated(array: Any) -> Any:
    """Make the simulator's device array of a numpy array, without a copy and of any strides."""
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    return FakeCUDAArray(array)  # type: ignore[no-untyped-call]


def reason_unusable() -> str | None:
    """Say why no kernel can run in this process, or None when they can."""
    if SIMULATED:
        return None if not COMPILED else "numba's CUDA simulator runs plain Python: set NUMBA_DISABLE_JIT=1 too"
    return None if cuda.is_available() else "numba-cuda finds no CUDA device, or no driver for it"


def failures() -> tuple[type[Exception], ...]:
    """Errors of the device rather than of what was asked of it."""
    import torch
    from numba.cuda.cudadrv import driver, error

    names = ("CudaDriverError", "CudaSupportError", "NvvmError")
    ours = [getattr(error, name) for name in names if hasattr(error, name)]
    theirs = getattr(torch, "AcceleratorError", torch.cuda.OutOfMemoryError)
    return (*ours, driver.CudaAPIError, torch.cuda.OutOfMemoryError, theirs)
