"""Reserves memory for large Gram matrices before they are read, and refuses them if there is too little memory."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

from masksmith.layouts import WHOLE_BYTES
from masksmith_state.jobs.shards import PlannedTensor

from .reservations import Reservations

PEAK_MATRICES = {"reconstruct": 2.1, "admm": 6.0, "sparsegpt": 7.0}
"""Peak memory of each use of a Gram matrix, as a multiple of its size in float64 (`docs/operations.md`)."""
WAIT_S = 0.5
"""Seconds between two checks of the memory that other processes have reserved."""
MEMORY_INFO = Path("/proc/meminfo")
OWN_STATM = Path("/proc/self/statm")
OWN_CGROUPS = Path("/proc/self/cgroup")
"""The control groups of this process, one per line: `ID:CONTROLLERS:PATH`; CONTROLLERS is empty for version 2."""
CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUP_FILES = ("memory.max", "memory.current", "memory.stat")
"""Limit, use and statistics of a control group of version 2."""
CGROUP_V1_FILES = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
"""The same files of a control group of version 1."""
FILE_CACHE = ("total_inactive_file", "inactive_file")
"""Members of the statistics with the bytes of cached files that were not used recently; the first one present is read.

A control group counts these bytes as used, but frees them when memory is needed.
"""


class InsufficientMemoryError(Exception):
    """The Gram matrices that are read at once need more memory than this process may take."""


@contextmanager
def reserved_memory(
    gram: PlannedTensor, use: str, check: Callable[[], None], stack_rows: int | None = None
) -> Iterator[None]:
    """Reserve memory for the Gram matrices that are read at once, until the end of the block.

    Nothing is reserved if the matrices have at most `WHOLE_BYTES` together. Waits while there is too little memory
    because of the reservations of other processes.

    Args:
        gram: The stored matrices, `[*stack, in, in]`.
        use: A key of `PEAK_MATRICES`.
        check: Called while this waits; raises an error to stop the work.
        stack_rows: How many indices of the stack's first axis are read at once; each selects all matrices along the
            other axes of the stack. None if there is a single matrix.

    Raises:
        InsufficientMemoryError: If there is too little memory although no other process has a reservation; the message
            gives needed and available bytes. Also if the folder of the reservations cannot be used.
    """
    matrices = 1 if stack_rows is None else stack_rows * math.prod(gram.shape[1:-2])
    matrix_bytes = 8 * gram.shape[-1] ** 2
    if matrix_bytes * matrices <= WHOLE_BYTES:
        yield
        return
    # Only one matrix is in use at a time, and needs the peak memory; each other matrix needs only its own size.
    needed = int(matrix_bytes * (PEAK_MATRICES[use] + matrices - 1))

    def wait() -> None:
        check()
        time.sleep(WAIT_S)

    with ExitStack() as stack:
        try:
            reservation = Reservations.of_user().try_to_reserve(needed, available_bytes, wait)
            # None if the memory is reserved, else the bytes that are available.
            available_if_refused = stack.enter_context(reservation)
        except OSError as error:
            raise InsufficientMemoryError(
                f"{use} needs {needed} bytes of memory for its Gram matrix {gram.shape}, and they cannot be "
                f"reserved in the worker's temporary folder: {error}; make room there, or set TMPDIR to another folder"
            ) from None
        if available_if_refused is not None:
            raise InsufficientMemoryError(
                f"{use} needs {needed} bytes of memory for its Gram matrix {gram.shape}, and a slot of this worker can "
                f"take {available_if_refused}; use a worker with more memory or fewer slots"
            )
        yield


def available_bytes() -> int:
    """Bytes that this process may still take: the least of what machine, cgroup and address-space limit leave free."""
    return max(0, min(_free_bytes()))


def _free_bytes() -> Iterator[int]:
    """Yield what the machine and each limit leave free."""
    lines = dict(line.split(":") for line in MEMORY_INFO.read_text().splitlines())
    yield 1024 * int(lines["MemAvailable"].split()[0])
    for files in _cgroup_files():
        try:
            limit, used, statistics = (file.read_text().strip() for file in files)
        except OSError:
            continue
        if limit != "max":
            members = dict(line.split() for line in statistics.splitlines())
            cached = next((int(members[name]) for name in FILE_CACHE if name in members), 0)
            yield int(limit) - int(used) + cached
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if space != resource.RLIM_INFINITY:
        yield space - int(OWN_STATM.read_text().split()[0]) * resource.getpagesize()


def _cgroup_files() -> Iterator[list[Path]]:
    """Yield the files of this process's control groups for memory, and of their parent groups, which limit it, too.

    A container may see its own group as the root, so some of the files may not exist.
    """
    for line in OWN_CGROUPS.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = CGROUP_ROOT, CGROUP_FILES
        elif "memory" in controllers.split(","):
            root, names = CGROUP_ROOT / "memory", CGROUP_V1_FILES
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        for folder in (group, *group.parents):
            yield [root / folder / name for name in names]
