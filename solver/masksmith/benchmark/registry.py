"""Registry of kernels: those of masksmith, and those that other packages provide as entry points.

An entry point of the group `masksmith.kernels` names an object that satisfies `Kernel`, or a class of such objects. An
entry point that cannot be loaded, or names anything else, is listed as a kernel that cannot run, with the reason, and
does not affect other kernels.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from .declaration import Declaration
from .errors import BenchmarkError
from .kernel import Kernel, Operand, Packed, obstacle_of

log = logging.getLogger("masksmith")
GROUP = "masksmith.kernels"

_MODULE_OF_CLASS = {
    "Dense": "dense",
    "DenseZeros": "dense",
    "CuSparseLt": "cusparselt",
    "Cutlass": "cutlass",
    "Bsr": "bsr",
    "Csr": "csr",
    "ScipyCsr": "scipy_csr",
    "Gather": "gather",
}
"""Classes of masksmith's kernels, the baseline first, and the module of each in `kernels/`."""


class UnloadableKernel:
    """Replaces the kernel of an entry point that cannot be loaded, or whose object is not a kernel."""

    def __init__(self, name: str, reason: str) -> None:
        self.declaration = Declaration(name, "a kernel of another package, which cannot be loaded", {})
        self._reason = reason

    def obstacle(self, device: str) -> str | None:
        """Return the reason why there is no kernel."""
        return self._reason

    def pack(self, operand: Operand) -> Packed:
        """Raise an error with the reason."""
        raise RuntimeError(self._reason)


def own_kernels() -> dict[str, Kernel]:
    """Return masksmith's kernels by name, the baseline first, without importing torch."""
    kernels: list[Kernel] = [
        getattr(import_module(f".kernels.{module}", __package__), name)() for name, module in _MODULE_OF_CLASS.items()
    ]
    return {kernel.declaration.name: kernel for kernel in kernels}


def all_kernels() -> dict[str, Kernel]:
    """Return the kernels of this installation by name; imports the packages that provide kernels.

    Of kernels with equal names, only the first is returned: masksmith's own come first, then those of the entry points,
    in the order of the names of the entry points.
    """
    kernels = own_kernels()
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        kernel = _load(point)
        name = kernel.declaration.name
        if name in kernels:
            log.warning(
                "entry point %s has a kernel %r, but this name is in use; the kernel is ignored", point.value, name
            )
        else:
            kernels[name] = kernel
    return kernels


def declarations(kernels: Mapping[str, Kernel]) -> dict[str, Declaration]:
    """Return the kernels' declarations by name."""
    return {name: kernel.declaration for name, kernel in kernels.items()}


def check_runnable(names: list[str] | None, kernels: Mapping[str, Kernel], device: str) -> None:
    """Check that the named kernels, all of which must be keys of `kernels`, can run here; without names, check none.

    Raises:
        BenchmarkError: If one cannot run, with the reason.
    """
    for name in names or []:
        reason = obstacle_of(kernels[name], device)
        if reason is not None:
            raise BenchmarkError("kernel_refused", f"kernel {name!r} cannot run on {device} here: {reason}")


def _load(point: EntryPoint) -> Kernel:
    try:
        kernel = point.load()
        kernel = kernel() if isinstance(kernel, type) else kernel
        # The check reads properties of the kernel, which may raise anything, too.
        if isinstance(kernel, Kernel) and isinstance(kernel.declaration, Declaration):
            return kernel
    except Exception as error:  # noqa: BLE001 - other packages may raise anything
        return UnloadableKernel(point.name, f"{point.value} cannot be loaded: {type(error).__name__}: {error}")
    return UnloadableKernel(point.name, f"{point.value} is not a kernel: it needs declaration, obstacle and pack")
