"""Updated weights in a file, as a mapping from names to torch tensors or numpy arrays; read at each look-up."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from masksmith.layouts import ITEM_BYTES
from masksmith_client._errors import WireError
from masksmith_client.submission.expected_tensor import ExpectedTensor
from masksmith_client.submission.streamed_tensor import Restore, as_numpy
from masksmith_client.submission.tensors import SAFETENSORS_DTYPES
from masksmith_wire.digests import digest_violation, read_digests
from masksmith_wire.dtypes import to_numpy
from masksmith_wire.headers import TensorEntry

from .checks import check_names, check_weight
from .masks import Masks
from .tensor_file import TensorFile, row_ranges

_TORCH_DTYPES = {stored: torch_name for torch_name, stored in SAFETENSORS_DTYPES.items()}


class UpdatedWeights(TensorFile):
    """Updated weights by name, zero in the pruned entries, in the weights' shapes and dtypes.

    A weight is a torch tensor on its original device if it was a torch tensor, else a numpy array (float32 for
    bfloat16, which numpy lacks). `model.load_state_dict({**model.state_dict(), **weights})` loads them into a model.
    """

    def check(self, expected: Mapping[str, ExpectedTensor], masks: Masks) -> None:
        """Check that the file holds weights of these tensors which are finite, and zero where the masks drop entries.

        Args:
            expected: Shapes and dtypes by name.
            masks: The checked masks of the same tensors.

        Raises:
            WireError: If the file has other names than `expected`; if a weight has another shape or dtype, an entry
                that is not finite, or one that is not zero although its mask drops it; if the digests cannot be read,
                or do not match the bytes; or if a mask violates its pattern.
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
            self._check_entries(entry, masks)

    def _check_entries(self, entry: TensorEntry, masks: Masks) -> None:
        """Check the entries of a weight, a few rows at a time; raises as `check` does."""
        cols = entry.shape[-1]
        row_bytes = cols * ITEM_BYTES[entry.dtype]
        for first, last in row_ranges(entry.shape):
            data = self._read(entry.start + first * row_bytes, entry.start + last * row_bytes)
            values = to_numpy(data, entry.dtype, (last - first, cols))
            wrong = ~np.isfinite(values) | ((values != 0) & ~masks.rows(entry.name, first, last))
            if wrong.any():
                row, col = (int(index) for index in np.argwhere(wrong)[0])
                index = [int(i) for i in np.unravel_index((first + row) * cols + col, entry.shape)]
                raise WireError(
                    f"the updated weight of {entry.name!r} holds {values[row, col]:g} at {index}: expected finite "
                    "values, and 0 where its mask drops an entry"
                )

    def _row_reader(self, entry: TensorEntry) -> Callable[[int, int], bytes]:
        """Return a function that reads the bytes of rows `first` to `last` of a weight, `last` excluded."""
        row_bytes = (entry.stop - entry.start) // entry.shape[0]

        return lambda first, last: self._read(entry.start + first * row_bytes, entry.start + last * row_bytes)

    def __getitem__(self, name: str) -> Any:
        entry, data = self._entries[name], self.data(name)
        restore = self._restore.get(name, as_numpy)
        if restore is as_numpy:
            return to_numpy(memoryview(data), entry.dtype, entry.shape)
        return _as_torch(data, entry, restore)

    def data(self, name: str) -> bytearray:
        """Read the bytes of a weight, little-endian, in its dtype."""
        entry = self._entries[name]
        return bytearray(self._read(entry.start, entry.stop))


def _as_torch(data: bytearray, entry: TensorEntry, restore: Restore) -> Any:
    # `restore` moves the bytes to the weight's device; they get their dtype there, since numpy has no bfloat16.
    dtype = getattr(sys.modules["torch"], _TORCH_DTYPES[entry.dtype])
    return restore(np.frombuffer(data, np.uint8)).view(dtype).reshape(entry.shape)
