"""A fault to inject: rows that begin with POISON kill the process that solves them, as a crash in native code would.

Python imports this module by itself wherever its folder stands on PYTHONPATH.
"""

import os
import signal

from masksmith_wire import dtypes

POISON = bytes.fromhex("0defaced")
_write_magnitudes = dtypes.write_magnitudes


def write_magnitudes(stored, magnitudes):
    if stored[:1].tobytes()[: len(POISON)] == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
    _write_magnitudes(stored, magnitudes)


dtypes.write_magnitudes = write_magnitudes
