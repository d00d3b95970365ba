"""A quantised weight that is read through its scale: float32 values, a band of rows at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from masksmith_client._errors import InputError

from .stored_values import float8_values, scale_values
from .tensors import Tensor, open_tensor_file, read_range

BAND_ENTRIES = 2**17
"""Maximum number of entries of a band; but a band has at least one row, even if the row has more entries."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scale:
    """The tensor of factors by which the stored numbers of a quantised weight are multiplied.

    Attributes:
        tensor: The factors: one for each block of each matrix, in the order `[*stack, block rows, block columns]`.
        block: Rows and columns of a block in the weight's last two dimensions; blocks at the edges may be cropped.
    """

    tensor: Tensor
    block: tuple[int, int]

    def read(self, cols: int) -> Floats:
        """Read the factors of matrices of `cols` columns, as one matrix `[matrices * block rows, block columns]`.

        Raises:
            InputError: If a factor is not finite, or the file cannot be read.
        """
        values = scale_values(self.tensor.read(), self.tensor.dtype)
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            index = [int(place) for place in np.unravel_index(bad[0], self.tensor.shape)]
            raise InputError(f"the scale {self.tensor.name!r} is {values[bad[0]]} at {index}; download the file again")
        return values.reshape(-1, max(1, -(-cols // self.block[1])))


@dataclass(frozen=True, slots=True)
class ScaledTensor(Tensor):
    """A weight that a file stores as 8-bit floats with a scale.

    `dtype` and `data_bytes` are those of its float32 values; `start` and `stop` are the offsets of the stored bytes.

    Attributes:
        stored_dtype: Dtype in the file.
        scale: The scale of the stored numbers.
    """

    stored_dtype: str
    scale: Scale

    @classmethod
    def through(cls, tensor: Tensor, scale: Scale) -> ScaledTensor:
        """Make the tensor whose values are the numbers of a stored tensor, multiplied by `scale`."""
        return cls(tensor.name, "F32", tensor.shape, tensor.file, tensor.start, tensor.stop, tensor.dtype, scale)

    @property
    def data_bytes(self) -> int:
        """Size of its float32 values."""
        return 4 * math.prod(self.shape)

    @property
    def is_stored(self) -> bool:
        """False: its bytes are computed, and are not those of the file."""
        return False

    def pieces(self) -> Iterator[bytes]:
        """Yield its values as little-endian float32, in bands of rows.

        Raises:
            InputError: If a file cannot be read or became shorter, or a factor is not finite.
        """
        if not self.data_bytes:
            return
        *stack, rows, cols = self.shape
        table, factors = float8_values(self.stored_dtype), self.scale.read(cols)
        block_height, block_width = self.scale.block
        block_rows = -(-rows // block_height)
        band_rows = max(1, BAND_ENTRIES // cols)
        total_rows = math.prod(stack) * rows
        with open_tensor_file(self) as file:
            for first in range(0, total_rows, band_rows):
                last = min(first + band_rows, total_rows)
                start, stop = self.start + first * cols, self.start + last * cols
                data = b"".join(read_range(file, start, stop, self.early_end_text))
                stored = np.frombuffer(data, np.uint8).reshape(last - first, cols)
                matrix, row = np.divmod(np.arange(first, last), rows)
                row_factors = factors[matrix * block_rows + row // block_height]
                # Values that are not finite raise no warning here: the solver refuses them, and names their index.
                with np.errstate(over="ignore", invalid="ignore"):
                    values = table[stored] * np.repeat(row_factors, block_width, axis=1)[:, :cols]
                yield values.astype("<f4", copy=False).tobytes()
