"""Load stage: reads the rows of a stored tensor that a shard needs."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
from obstore.exceptions import BaseError as StoreError

from masksmith_state.blobs.store import BlobStore, upload_name
from masksmith_state.jobs.shards import PlannedTensor
from masksmith_wire.dtypes import to_numpy

Array = npt.NDArray[Any]


class UploadMissingError(Exception):
    """An upload is no longer in the store."""


class DamagedUploadError(Exception):
    """An upload is shorter in the store than when it was received."""

    def __init__(self, digest: str) -> None:
        super().__init__(digest)
        self.digest = digest


def load_rows(store: BlobStore, tensor: PlannedTensor, first: int = 0, last: int | None = None) -> Array:
    """Read rows `first` to `last` (exclusive) of a tensor, by default all rows.

    Raises:
        UploadMissingError: If its upload no longer exists.
        DamagedUploadError: If its upload is too short.
    """
    last = tensor.shape[0] if last is None else last
    start, stop = (tensor.start + row * tensor.row_bytes for row in (first, last))
    name = upload_name(tensor.digest)
    try:
        data = store.get_range(name, start, stop)
    except FileNotFoundError:
        raise UploadMissingError(tensor.digest) from None
    except StoreError:
        # A range that begins after the end of the blob is a store error, too.
        size = store.size(name)
        if size is not None and size < stop:
            raise DamagedUploadError(tensor.digest) from None
        raise
    if len(data) < stop - start:
        raise DamagedUploadError(tensor.digest)
    return to_numpy(data, tensor.dtype, (last - first, *tensor.shape[1:]))
