"""Updated weights in a file, as a mapping from names to torch tensors or numpy arrays; read at each look-up."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from masksmith_client._errors import WireError
from masksmith_client.submission.expected_tensor import ExpectedTensor
from masksmith_client.submission.streamed_tensor import Restore, as_numpy
from masksmith_client.submission.tensors import SAFETENSORS_DTYPES
from masksmith_wire.digests import digest_violation, read_digests
from masksmith_wire.dtypes import to_numpy
from masksmith_wire.headers import TensorEntry

from .checks import check_names, check_weight
from .tensor_file import TensorFile

_TORCH_DTYPES = {stored: torch_name for torch_name, stored in SAFETENSORS_DTYPES.items()}


class UpdatedWeights(TensorFile):
    """Updated weights by name, zero in the pruned entries, in the weights' shapes and dtypes.

    A weight is a torch tensor on its original device if it was a torch tensor, else a numpy array (float32 for
    bfloat16, which numpy lacks). `model.load_state_dict({**model.state_dict(), **weights})` loads them into a model.
    """

    def check(self, expected: Mapping[str, ExpectedTensor]) -> None:
        """Check that the file holds the weights of these tensors, and that their bytes match the file's digests.

        The bytes of a weight without digests are not checked.

        Raises:
            WireError: If the file has other names than `expected`; if a weight has another number of entries or rows;
                or if the digests cannot be read, or do not match the bytes.
        """
        check_names(self._header, expected, "updated weights")
        try:
            digests = read_digests(self._header.metadata)
        except ValueError:
            raise WireError("the digests in the file of updated weights cannot be read") from None
        for name, entry in self._entries.items():
            check_weight(entry, expected[name])
            violation = digest_violation(name, entry.shape[0], digests.get(name, []), self._row_reader(entry))
            if violation is not None:
                raise WireError(violation)

    def _row_reader(self, entry: TensorEntry) -> Callable[[int, int], bytes]:
        """Return a function that reads the bytes of rows `first` to `last` of a weight, `last` excluded."""
        row_bytes = (entry.stop - entry.start) // entry.shape[0]

        def read(first: int, last: int) -> bytes:
            self._file.seek(entry.start + first * row_bytes)
            return self._file.read((last - first) * row_bytes)

        return read

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
    # `restore` moves the bytes to the weight's device; they get their dtype there, since numpy has no bfloat16.
    dtype = getattr(sys.modules["torch"], _TORCH_DTYPES[entry.dtype])
    return restore(np.frombuffer(data, np.uint8)).view(dtype).reshape(entry.shape)
