"""Load stage: reads the rows of a tensor that a shard needs, from an upload or from a file in a root."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from masksmith_state.blobs.names import upload_name
from masksmith_state.blobs.store import BlobStore
from masksmith_state.errors import DamagedBlobError
from masksmith_state.jobs.shards import PlannedTensor, Source
from masksmith_state.roots.roots import Roots
from masksmith_wire.dtypes import to_numpy

Array = npt.NDArray[Any]


class UploadMissingError(Exception):
    """An upload is no longer in the store."""


class DamagedUploadError(Exception):
    """The bytes of an upload in the store are not the bytes that were received.

    Attributes:
        digest: Digest of the upload.
        tensor: Name of its tensor, if the upload was read to divide a budget among all tensors; else None.
    """

    def __init__(self, digest: str, tensor: str | None = None) -> None:
        super().__init__(digest)
        self.digest, self.tensor = digest, tensor


@dataclass(frozen=True)
class InputReader:
    """Reads the tensors of jobs.

    Attributes:
        store: The blob store, with uploads.
        roots: Roots, with the files of tensors by reference.
    """

    store: BlobStore
    roots: Roots = field(default_factory=Roots)

    def rows(self, tensor: PlannedTensor, first: int = 0, last: int | None = None) -> Array:
        """Read rows `first` to `last` (exclusive) of a tensor; by default from the first row, to the last one.

        Raises:
            UploadMissingError: If its upload no longer exists.
            DamagedUploadError: If its upload is damaged.
            ChangedSourceError: If its file in a root has changed since the job was submitted.
            NoRootError: If this worker has no root that contains the file.
            InvalidLocationError: If a link leads outside the root.
        """
        last = tensor.shape[0] if last is None else last
        data = self.data(tensor, first, last)
        return to_numpy(data, tensor.dtype, (last - first, *tensor.shape[1:]))

    def data(self, tensor: PlannedTensor, first: int, last: int) -> bytes:
        """Read the bytes of rows `first` to `last` (exclusive) of a tensor; raises as `rows` does."""
        start, stop = (tensor.start + row * tensor.row_bytes for row in (first, last))
        if tensor.source is not None:
            return self.source_bytes(tensor.source, start, stop)
        try:
            data = self.store.get_range(upload_name(tensor.digest), start, stop)
        except FileNotFoundError:
            raise UploadMissingError(tensor.digest) from None
        except DamagedBlobError:
            raise DamagedUploadError(tensor.digest) from None
        if len(data) < stop - start:
            raise DamagedUploadError(tensor.digest)
        return data

    def source_bytes(self, source: Source, start: int, stop: int) -> bytes:
        """Read bytes of a file in a root; raises as `rows` does."""
        _, root, path = self.roots.find(source.location)
        return root.read(path, start, stop, source.version)
