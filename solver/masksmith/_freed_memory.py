"""Keeps freed memory in a process that solves many weights, since the next weight needs arrays of similar sizes."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of `mallopt` in glibc."""
KEPT_BYTES = 2**29
"""Largest amount of freed memory that the process keeps."""
LARGEST_KEPT_ARRAY_BYTES = 2**28
"""Size of the largest array whose memory is kept; that of larger ones, such as Gram matrices, is returned at once."""


def keep_freed_memory() -> bool:
    """Let the C library keep up to `KEPT_BYTES` of freed memory.

    By default glibc maps each array of more than 32 MiB anew, and the operating system zeroes the array's pages one by
    one, which takes a third of the processor time of a 2:4 shard. Only programs of this project call this function: the
    library itself does not change the settings of the process that imports it.

    Returns:
        Whether the setting applies; False where the C library is not glibc, or refuses the sizes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_ARRAY_BYTES) and mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))
