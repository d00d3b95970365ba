"""Scores of a shard: reads no more than they need, and works out once what all shards of a tensor share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from obstore.exceptions import BaseError as StoreError

from masksmith import scores
from masksmith_state.blobs.store import BlobStore, statistic_name, upload_name
from masksmith_state.jobs.shards import PlannedTensor
from masksmith_wire.digests import digest_document
from masksmith_wire.dtypes import to_numpy
from masksmith_wire.scores import parse_scores

Array = npt.NDArray[Any]

SLICE_ENTRIES = 2**21
"""Entries read at a time where all rows of a tensor have a say; belongs to the tensor, lest shards change a sum."""
BY_ROW = ("gradient", "gradient_rms", "scores")
"""Statistics of the weight's own shape."""


class DamagedUploadError(Exception):
    """An upload is not what it was when it came."""

    def __init__(self, digest: str) -> None:
        super().__init__(digest)
        self.digest = digest


class Scoring:
    """Scores a tensor, a few rows at a time.

    Args:
        store: Where weights and statistics are.
        tensor: The tensor.
        text: The method, as jobs name it.
        check: Called now and then; what it raises stops the work.
    """

    def __init__(self, store: BlobStore, tensor: PlannedTensor, text: str, check: Callable[[], None]) -> None:
        self._store, self._tensor, self._check = store, tensor, check
        self._method = parse_scores(text)
        self._options = dict(self._method.options)

    def rows(self, first: int, last: int) -> Array:
        """Give the scores of some rows.

        Raises:
            ScoresError: If weights or statistics hold what no score can be made of.
            FileNotFoundError: If an upload is gone.
        """
        if self._method.block is not None:
            return self._whole_blocks(first, last, self._method.block[0])
        if self._method.name == "pfp" or self._options.get("group") == "in":
            shape = self._tensor.shape
            columns = self._shared(self._channels).astype(np.float32).reshape(1, -1, *(1 for _ in shape[2:]))
            return np.broadcast_to(columns, (last - first, *shape[1:])).copy()
        if self._method.name == "ria":
            sums = self._shared(self._column_sums)
            return self._score(first, last, column_sums=sums)
        return self._score(first, last)

    def _score(self, first: int, last: int, **more: Any) -> Array:
        tensor, method = self._tensor, self._method
        given, kind, options = None, None, self._options | more
        if tensor.statistic is not None:
            kind = tensor.statistic.name
            if kind == "gram":
                given, kind, options = self._shared(self._inverse_diagonal), "inverse_diagonal", {}
            else:
                given = read_rows(self._store, tensor.statistic, *self._span(kind, first, last))
        if method.name == "given" and given is not None:
            return given
        weight = read_rows(self._store, tensor, first, last)
        found: Array = scores.by_name(method.name, weight, given, kind, name=tensor.name, **options)
        return found

    def _span(self, kind: str, first: int, last: int) -> tuple[int, int]:
        assert self._tensor.statistic is not None
        return (first, last) if kind in BY_ROW else (0, self._tensor.statistic.shape[0])

    def _whole_blocks(self, first: int, last: int, height: int) -> Array:
        top, bottom = first // height * height, min(-(-last // height) * height, self._tensor.shape[0])
        return self._score(top, bottom)[first - top : last - top]

    def _slices(self) -> Iterator[tuple[int, int]]:
        rows, cols = self._tensor.shape[0], int(np.prod(self._tensor.shape[1:]))
        step = max(1, SLICE_ENTRIES // cols)
        for first in range(0, rows, step):
            self._check()
            yield first, min(first + step, rows)

    def _column_sums(self) -> Array:
        total = np.zeros(self._tensor.shape[1:])
        for first, last in self._slices():
            total += scores.column_sums(read_rows(self._store, self._tensor, first, last))
        return total

    def _channels(self) -> Array:
        """What all rows say of each input channel: the largest sensitivity, or the sum of the Taylor terms."""
        merge = np.maximum if self._method.name == "pfp" else np.add
        total = np.zeros(self._tensor.shape[1])
        for first, last in self._slices():
            total = merge(total, self._score(first, last)[0].reshape(len(total), -1)[:, 0])
        return total

    def _inverse_diagonal(self) -> Array:
        assert self._tensor.statistic is not None
        gram = read_rows(self._store, self._tensor.statistic, *self._span("gram", 0, 0))
        return scores.inverse_diagonal(gram, name=self._tensor.name, **self._options)  # type: ignore[arg-type]

    def _shared(self, work: Callable[[], Array]) -> Array:
        """Work out what all shards need, unless another one did: `[any]` float64, kept in the store."""
        key = digest_document(
            {"tensor": self._tensor.inputs, "scores": str(self._method), "part": work.__name__, "version": 1}
        )
        try:
            return np.frombuffer(self._store.get(statistic_name(key)), "<f8")
        except FileNotFoundError:
            found = work().astype("<f8")
            self._store.put(statistic_name(key), found.tobytes())
            return found.reshape(-1)


def read_rows(store: BlobStore, tensor: PlannedTensor, first: int, last: int) -> Array:
    """Read some rows of a tensor, and no other bytes.

    Raises:
        FileNotFoundError: If its upload is gone.
        DamagedUploadError: If it is shorter than it was.
    """
    start, stop = (tensor.start + row * tensor.row_bytes for row in (first, last))
    name = upload_name(tensor.digest)
    try:
        data = store.get_range(name, start, stop)
    except StoreError:
        # What begins behind the end is an error of the store's, too.
        size = store.size(name)
        if size is not None and size < stop:
            raise DamagedUploadError(tensor.digest) from None
        raise
    if len(data) < stop - start:
        raise DamagedUploadError(tensor.digest)
    return to_numpy(data, tensor.dtype, (last - first, *tensor.shape[1:]))
