"""The error of invalid benchmark requests."""

from __future__ import annotations

from typing import Literal

from masksmith.patterns.errors import MasksmithError

Fault = Literal["unknown_kernel", "kernel_refused", "invalid_mask", "invalid_benchmark"]


class BenchmarkError(MasksmithError, ValueError):
    """A request that cannot be measured; raised before anything runs.

    Attributes:
        fault: `unknown_kernel`, `kernel_refused` (device, dtype, shape, pattern or direction), `invalid_mask` (a
            mask violates its pattern, or has another shape or an unsupported dtype), or `invalid_benchmark` (any other
            fault of the request).
    """

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault: Fault = fault
