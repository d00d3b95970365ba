"""Keeps freed memory in a process that solves many weights, since each needs arrays of the same sizes again."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of `mallopt` in glibc."""
KEPT_BYTES = 2**29
LARGEST_KEPT_BYTES = 2**28
"""Larger arrays, such as Gram matrices, are returned to the system at once."""


def keep_freed_memory() -> bool:
    """Have the C library keep up to `KEPT_BYTES` of freed memory; returns whether it does, as glibc alone can.

    By default each array of more than 32 MiB is mapped anew, and its pages are zeroed by the kernel one by one, which
    takes a third of the processor time of a 2:4 shard. Only programs of this project call it, never the library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES) and mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))
