"""A fault to inject: rows that begin with POISON kill the process that reads them, as a crash in native code would.

Python imports this module by itself wherever its folder stands on PYTHONPATH.
"""

import os
import signal

from masksmith_wire import dtypes

POISON = bytes.fromhex("0defaced")
_to_numpy = dtypes.to_numpy


def to_numpy(data, dtype, shape):
    if bytes(data[: len(POISON)]) == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
    return _to_numpy(data, dtype, shape)


dtypes.to_numpy = to_numpy
