"""The cores of this process, and numbers of threads."""

import os
from numbers import Integral


def available_cores() -> int:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_whole_number(value: object) -> bool:
    """Return whether a value can be a number of threads: an integer of Python or numpy, but not True or False."""
    return isinstance(value, Integral) and not isinstance(value, bool)
