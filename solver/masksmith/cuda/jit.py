"""Decorators that compile CUDA kernels; no other module imports numba-cuda."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

import numpy as np
from numba import config

from masksmith.kernels.jit import COMPILED

cuda: Any = import_module("numba.cuda")
"""The numba.cuda module; the simulator requires it as a global of every module with kernels."""
SIMULATED: bool = bool(config.ENABLE_CUDASIM)  # type: ignore[attr-defined]
"""Whether kernels run in numba's simulator, on numpy arrays; it needs NUMBA_DISABLE_JIT=1 too."""


def kernel(function: Callable[..., None]) -> Any:
    """Mark a function as a kernel, compiled at its first launch, without fast-math."""
    return cuda.jit(function)


def device(function: Callable[..., Any]) -> Any:
    """Mark a function as a device function, which kernels can call."""
    return cuda.jit(device=True)(function)


def _wrap_plain(value: Any) -> Any:
    return np.int32((int(value) + 2**31) % 2**32 - 2**31)


def _wrap(value: Any) -> Any:
    return np.int32(value)


wrap_int32: Any = _wrap_plain if SIMULATED else device(_wrap)
"""Wrap an integer around to 32 bits: the value modulo 2^32, between -2^31 and 2^31 - 1."""


def simulated(array: Any) -> Any:
    """Wrap a numpy array as a device array of the simulator, without a copy and with any strides."""
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    return FakeCUDAArray(array)  # type: ignore[no-untyped-call]


def reason_kernels_cannot_run() -> str | None:
    """Return why kernels cannot run in this process, or None if they can."""
    if SIMULATED:
        return None if not COMPILED else "numba's CUDA simulator runs plain Python: set NUMBA_DISABLE_JIT=1 too"
    return None if cuda.is_available() else "numba-cuda finds no CUDA device, or no driver for it"


DEVICE_ERRORS = {
    "numba.cuda.cudadrv.error": ("CudaDriverError", "CudaRuntimeError", "CudaSupportError", "NvvmError", "NvrtcError"),
    "numba.cuda.cudadrv.driver": ("CudaAPIError", "LinkerError"),
    "cuda.core._utils.cuda_utils": ("CUDAError", "NVRTCError"),
    "cuda.bindings.nvjitlink": ("nvJitLinkError",),
    "torch": ("AcceleratorError", "OutOfMemoryError"),
    "torch.cuda": ("OutOfMemoryError",),
}
"""Names of exceptions by module: those of numba, of the packages with which it links and launches, and of torch.

Which of them exist depends on the versions, and in the simulator some do not.
"""


def device_error_types() -> tuple[type[Exception], ...]:
    """Return the exception types of numba, CUDA's Python packages and torch that mean a failure of the device."""
    found = []
    for module_name, names in DEVICE_ERRORS.items():
        with suppress(ImportError):
            module = import_module(module_name)
            found += [getattr(module, name) for name in names if hasattr(module, name)]
    return tuple(dict.fromkeys(found))


def is_device_error(error: Exception) -> bool:
    """Whether an exception means a failure of the device, not of the problem or of this code."""
    # torch before 2.8 raises a plain RuntimeError for errors that CUDA reports after the launch.
    return isinstance(error, device_error_types()) or str(error).startswith("CUDA error:")
