"""Load stage: reads the rows of a stored tensor that a shard needs."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from masksmith_state.blobs.names import upload_name
from masksmith_state.blobs.store import BlobStore
from masksmith_state.errors import DamagedBlobError
from masksmith_state.jobs.shards import PlannedTensor
from masksmith_wire.dtypes import to_numpy

Array = npt.NDArray[Any]


class UploadMissingError(Exception):
    """An upload is no longer in the store."""


class DamagedUploadError(Exception):
    """An upload is not in the store as it was received."""

    def __init__(self, digest: str) -> None:
        super().__init__(digest)
        self.digest = digest


def load_rows(store: BlobStore, tensor: PlannedTensor, first: int = 0, last: int | None = None) -> Array:
    """Read rows `first` to `last` (exclusive) of a tensor, by default all rows.

    Raises:
        UploadMissingError: If its upload no longer exists.
        DamagedUploadError: If its upload is damaged.
    """
    last = tensor.shape[0] if last is None else last
    start, stop = (tensor.start + row * tensor.row_bytes for row in (first, last))
    try:
        data = store.get_range(upload_name(tensor.digest), start, stop)
    except FileNotFoundError:
        raise UploadMissingError(tensor.digest) from None
    except DamagedBlobError:
        raise DamagedUploadError(tensor.digest) from None
    if len(data) < stop - start:
        raise DamagedUploadError(tensor.digest)
    return to_numpy(data, tensor.dtype, (last - first, *tensor.shape[1:]))
