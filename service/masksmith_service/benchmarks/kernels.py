"""The kernels of an installation: those of masksmith, and those that live workers announce."""

from __future__ import annotations

from collections.abc import Sequence

from masksmith.benchmark import Declaration, own_kernels
from masksmith_service.errors import RequestError
from masksmith_wire.benchmarks import BenchmarkOptions, BenchWorker, KernelInfo, KernelPlace
from masksmith_wire.errors import Code


def declarations(workers: Sequence[BenchWorker]) -> dict[str, Declaration]:
    """Return the declarations of masksmith's kernels and of live workers' kernels by name, the first of each name."""
    by_name = {name: kernel.declaration for name, kernel in own_kernels().items()}
    for worker in workers:
        for kernel in worker.kernels:
            declaration = Declaration.read(kernel.declaration)
            by_name.setdefault(declaration.name, declaration)
    return by_name


def kernel_infos(workers: Sequence[BenchWorker]) -> list[KernelInfo]:
    """Return a document for each kernel, with the workers that have it."""
    infos = []
    for declaration in declarations(workers).values():
        places = [
            KernelPlace(worker=worker.name, device=worker.device, runs=kernel.obstacle is None, reason=kernel.obstacle)
            for worker in workers
            for kernel in worker.kernels
            if kernel.declaration["name"] == declaration.name
        ]
        infos.append(KernelInfo(**declaration.document(), workers=places))
    return infos


def check_runnable(options: BenchmarkOptions, workers: Sequence[BenchWorker]) -> None:
    """Reject a named kernel if live workers of the device announce it, and none of them can run it.

    If no live worker of the device announces it, the job waits.

    Raises:
        RequestError: If a kernel is rejected.
    """
    candidates = [worker for worker in workers if worker.device.partition(":")[0] == options.device]
    for name in options.kernels or []:
        obstacles = [
            kernel.obstacle for worker in candidates for kernel in worker.kernels if kernel.declaration["name"] == name
        ]
        if obstacles and all(obstacles):
            detail = f"kernel {name!r} cannot run on {options.device} here: {obstacles[0]}"
            raise RequestError(Code.KERNEL_REFUSED, detail, kernel=name)
