"""Whether this process may take the memory that a large Gram matrix needs, before any of it is read."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

from masksmith.layouts import WHOLE_BYTES
from masksmith_state.jobs.shards import PlannedTensor

COPIES = {"reconstruct": 2.25, "admm": 6.0, "sparsegpt": 7.0}
"""Most memory that a use of a Gram matrix takes, in multiples of the matrix in float64 (`docs/by_reference.md`)."""
MEMORY_INFO = Path("/proc/meminfo")
OWN_STATUS = Path("/proc/self/statm")
GROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


class InsufficientMemoryError(Exception):
    """A Gram matrix needs more memory than this process may take."""


def require_memory(gram: PlannedTensor, use: str, matrices: int = 1) -> None:
    """Check that a Gram matrix larger than `WHOLE_BYTES` fits into memory.

    Args:
        gram: `[*stack, in, in]`.
        use: A key of `COPIES`.
        matrices: Number of its matrices that are read at once.

    Raises:
        InsufficientMemoryError: Naming what it needs and what there is.
    """
    one = 8 * gram.shape[-1] ** 2
    if one * matrices <= WHOLE_BYTES:
        return
    needed, available = int(one * (COPIES[use] + matrices - 1)), available_bytes()
    if needed > available:
        raise InsufficientMemoryError(
            f"{use} needs {needed} bytes of memory for its Gram matrix {gram.shape}, and a slot of this worker can "
            f"take {available}; use a worker with more memory or fewer slots"
        )


def available_bytes() -> int:
    """Bytes that this process may still take: of the machine, of its control group, and of its address space."""
    return max(0, min(_limits()))


def _limits() -> Iterator[int]:
    lines = dict(line.split(":") for line in MEMORY_INFO.read_text().splitlines())
    yield 1024 * int(lines["MemAvailable"].split()[0])
    for limit_file, used_file in GROUP_FILES:
        try:
            limit, used = (Path(name).read_text().strip() for name in (limit_file, used_file))
        except OSError:
            continue
        if limit != "max":
            yield int(limit) - int(used)
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if space != resource.RLIM_INFINITY:
        yield space - int(OWN_STATUS.read_text().split()[0]) * resource.getpagesize()
