"""The exact solver on CUDA devices; masks equal those of the CPU bit for bit, and tensors stay on the device.

Passes of dual coordinate ascent run in shared memory, with many tiles per thread block. Tiles that no pass solves, and
tiles with forced entries, are solved by the CPU's shortest-path code, compiled for the device. For each band of tile
rows the host reads results once, or three times if tiles need the shortest-path stage. Names are loaded when
first used: a process that solves on the CPU loads neither torch nor numba's CUDA target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from masksmith._lazy import EXTRAS, attach

if TYPE_CHECKING:
    from .facts import (
        device_facts as device_facts,
        reason_not_cuda_device as reason_not_cuda_device,
        reason_not_torch_device as reason_not_torch_device,
    )
    from .jit import (
        device_error_types as device_error_types,
        is_device_error as is_device_error,
        reason_kernels_cannot_run as reason_kernels_cannot_run,
    )
    from .solve import solve_on as solve_on

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "facts": ("device_facts", "reason_not_cuda_device", "reason_not_torch_device"),
        "jit": ("device_error_types", "is_device_error", "reason_kernels_cannot_run"),
        "solve": ("solve_on",),
    },
    extras=EXTRAS,
)
