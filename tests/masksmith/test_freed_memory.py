"""A process that asks for it reuses the memory of freed arrays."""

import subprocess
import sys

PROGRAM = """
import resource, sys
import numpy as np
from masksmith._freed_memory import keep_freed_memory

def faults(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        np.ones(size, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "keep":
    assert keep_freed_memory()
faults(2**26)
print(faults(2**26))
"""


def faults_of(word):
    run = subprocess.run([sys.executable, "-c", PROGRAM, word], capture_output=True, text=True, check=True)
    return int(run.stdout)


def test_freed_arrays_are_not_mapped_anew():
    """Four arrays of 64 MiB have 65,536 pages of 4 KiB, or 128 huge ones."""
    kept = faults_of("keep")
    assert kept < 32
    assert kept < faults_of("return")
