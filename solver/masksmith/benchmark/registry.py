"""The kernels there are: masksmith's own, and those that other packages offer as entry points.

An entry point of the group `masksmith.kernels` names an object that satisfies `Kernel`. One that cannot be loaded is
kept as a kernel that says why it cannot run: a broken package must not hide, nor break the others.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from .declaration import Declaration
from .errors import BenchmarkError
from .kernel import Kernel, Operand, Packed

log = logging.getLogger("masksmith")
GROUP = "masksmith.kernels"

_HOMES = {
    "Dense": "dense",
    "DenseZeros": "dense",
    "CuSparseLt": "cusparselt",
    "Cutlass": "cutlass",
    "Bsr": "bsr",
    "Csr": "csr",
    "ScipyCsr": "scipy_csr",
    "Gather": "gather",
}


class Broken:
    """A kernel whose package cannot be loaded."""

    def __init__(self, name: str, reason: str) -> None:
        self.declaration = Declaration(name, "a kernel of another package, which cannot be loaded", {})
        self._reason = reason

    def obstacle(self, device: str) -> str | None:
        """Say what went wrong."""
        return self._reason

    def pack(self, operand: Operand) -> Packed:
        """Refuse."""
        raise RuntimeError(self._reason)


def own_kernels() -> dict[str, Kernel]:
    """Give masksmith's kernels by name, the baseline first; loads no torch."""
    found: list[Kernel] = [
        getattr(import_module(f".kernels.{home}", __package__), name)() for name, home in _HOMES.items()
    ]
    return {kernel.declaration.name: kernel for kernel in found}


def all_kernels() -> dict[str, Kernel]:
    """Give all kernels of this installation by name; loads the packages that offer some."""
    kernels = own_kernels()
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        kernel = _load(point)
        name = kernel.declaration.name
        if name in kernels:
            log.warning("entry point %s offers a kernel %r, which is taken: it is left out", point.value, name)
        else:
            kernels[name] = kernel
    return kernels


def declarations(kernels: Mapping[str, Kernel]) -> dict[str, Declaration]:
    """Give what kernels say of themselves."""
    return {name: kernel.declaration for name, kernel in kernels.items()}


def check_runnable(names: list[str] | None, kernels: Mapping[str, Kernel], device: str) -> None:
    """Refuse kernels that were named but cannot run here.

    Raises:
        BenchmarkError: With the reason.
    """
    for name in names or []:
        reason = kernels[name].obstacle(device) if name in kernels else None
        if reason is not None:
            raise BenchmarkError("kernel_refused", f"kernel {name!r} cannot run on {device} here: {reason}")


def _load(point: EntryPoint) -> Kernel:
    try:
        kernel = point.load()
        kernel = kernel() if isinstance(kernel, type) else kernel
    except Exception as error:  # noqa: BLE001 - whatever a stranger's package raises
        return Broken(point.name, f"{point.value} cannot be loaded: {type(error).__name__}: {error}")
    if not isinstance(kernel, Kernel) or not isinstance(kernel.declaration, Declaration):
        return Broken(point.name, f"{point.value} is no kernel: it needs declaration, obstacle and pack")
    return kernel
