"""Shards: the unit of work that one task does, whole tile rows of one tensor or all of it, bounded in bytes."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel

from masksmith.patterns import Pattern

from .digests import digest_document
from .documents import MasksOptions
from .dtypes import ITEM_BYTES
from .errors import Code, RequestError
from .updates import UPDATES_VERSION, UpdateMethod

SHARD_BYTES = 16 * 2**20
WHOLE_BYTES = 2**28
"""Largest tensor that goes to one worker whole, because its pattern cannot be solved in parts."""


class PlannedTensor(BaseModel):
    """A weight whose bytes have been located: `start` counts from the beginning of the uploaded file.

    `statistic` is what its scores are made from, called by its kind; `gram` is what an update needs.
    """

    name: str
    digest: str
    dtype: str
    shape: list[int]
    start: int
    statistic: PlannedTensor | None = None
    gram: PlannedTensor | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes of one output row."""
        size = ITEM_BYTES[self.dtype]
        for length in self.shape[1:]:
            size *= length
        return size


class Shard(BaseModel):
    """Output rows `first` to `last` (exclusive) of the job's tensor number `tensor`."""

    tensor: int
    first: int
    last: int


def cut(
    tensors: Iterable[PlannedTensor],
    pattern: Pattern,
    shard_bytes: int = SHARD_BYTES,
    update: UpdateMethod | None = None,
    most: int | None = None,
) -> list[Shard]:
    """Cut tensors into shards of whole tile rows, each of at most `shard_bytes` where a tile row allows it.

    Patterns whose budgets belong to the whole tensor, and updates that look at all of it, make one shard of it.

    Args:
        tensors: The tensors of a job.
        pattern: Their pattern.
        shard_bytes: Size to aim at.
        update: How weights are updated, if they are.
        most: Shards that a job may have.

    Raises:
        RequestError: If such a tensor is larger than `WHOLE_BYTES`, or there are too many shards.
    """
    shards: list[Shard] = []
    for number, tensor in enumerate(tensors):
        rows = tensor.shape[0]
        if update is not None and update.needs_whole_tensors:
            unit = _whole(tensor, update)
        else:
            unit = pattern.shard_rows or _whole(tensor, pattern)
        step = max(1, shard_bytes // max(1, tensor.row_bytes * unit)) * unit
        if most is not None and len(shards) + -(-rows // step) > most:
            detail = f"the job would have more than max_shards = {most} shards; name fewer tensors"
            raise RequestError(413, Code.TOO_MANY_SHARDS, detail, limit=most)
        shards += [Shard(tensor=number, first=row, last=min(row + step, rows)) for row in range(0, rows, step)]
    return shards


def _whole(tensor: PlannedTensor, binding: Pattern | UpdateMethod) -> int:
    rows = tensor.shape[0]
    if rows * tensor.row_bytes > WHOLE_BYTES:
        detail = (
            f"tensor {tensor.name!r}: {binding} binds the whole tensor, and its {rows * tensor.row_bytes} bytes are "
            f"more than the {WHOLE_BYTES} that go to one worker; use --local or the library"
        )
        raise RequestError(422, Code.TENSOR_DOES_NOT_FIT, detail, tensor=tensor.name, limit=WHOLE_BYTES)
    return rows


def result_key(tensor: PlannedTensor, shard: Shard, options: MasksOptions, solver: str, solver_version: int) -> str:
    """Name a shard's result by everything that determines it, the solver's version included."""
    updated = {} if options.update is None else {"update": [options.update, UPDATES_VERSION]}
    return digest_document(
        updated
        | {
            "format": 1,
            "tensor": tensor.model_dump(exclude={"name"}, exclude_none=True),
            "rows": [shard.first, shard.last],
            "options": options.model_dump(include={"pattern", "axis", "ragged", "scores", "time_limit_s"}),
            "solver": [solver, solver_version],
        }
    )
