"""Updated weights as a mapping from names to arrays: stored in a file, read at each look-up."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from masksmith_client.submission.streamed_tensor import Restore, as_numpy
from masksmith_client.submission.tensors import SAFETENSORS_DTYPES
from masksmith_wire.dtypes import to_numpy
from masksmith_wire.headers import TensorEntry

from .tensor_file import TensorFile

_FRAMEWORK_DTYPES = {known: name for name, known in SAFETENSORS_DTYPES.items()}


class UpdatedWeights(TensorFile):
    """Updated weights by name, zero in the pruned entries, in the weights' shapes and dtypes.

    A weight is a torch tensor on its original device if it was a torch tensor, else a numpy array (float32 for
    bfloat16, which numpy lacks). `model.load_state_dict({**model.state_dict(), **weights})` loads them into a model.
    """

    def __getitem__(self, name: str) -> Any:
        entry, data = self._entries[name], self.data(name)
        restore = self._restore.get(name, as_numpy)
        if restore is as_numpy:
            return to_numpy(memoryview(data), entry.dtype, entry.shape)
        return _as_torch(data, entry, restore)

    def data(self, name: str) -> bytearray:
        """Read the bytes of a weight, little-endian, in its dtype."""
        entry = self._entries[name]
        self._file.seek(entry.start)
        return bytearray(self._file.read(entry.stop - entry.start))


def _as_torch(data: bytearray, entry: TensorEntry, restore: Restore) -> Any:
    # Moved to the weight's device as bytes, since numpy has no bfloat16.
    dtype = getattr(sys.modules["torch"], _FRAMEWORK_DTYPES[entry.dtype])
    return restore(np.frombuffer(data, np.uint8)).view(dtype).reshape(entry.shape)
