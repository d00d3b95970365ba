"""Shards: the unit of work that one task does, whole tile rows of one tensor or all of it, bounded in bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pydantic import BaseModel

from masksmith.layouts import ITEM_BYTES, Layout, Rule
from masksmith.patterns import Pattern
from masksmith_state.errors import TooManyShardsError
from masksmith_wire.digests import digest_document
from masksmith_wire.specification import JobSpecification
from masksmith_wire.updates import UPDATES_VERSION

SHARD_BYTES = 16 * 2**20


BLOCK_ROWS = 16
"""Rows that shards begin at multiples of, where they may: blocks of stored formats are then counted shard by shard."""


class MaskPart(BaseModel):
    """Output rows `first` to `last` (exclusive) of a stored mask, from byte `start` of a blob: bits, or bool bytes."""

    blob: str
    start: int
    first: int
    last: int
    is_bool: bool = False


class PlannedTensor(BaseModel):
    """A weight whose bytes have been located: `start` counts from the beginning of the uploaded file.

    `axes` and `out_parts` are its layout, unless it is one matrix `[out, in]` or a convolution; `rule` says what
    decided that. `statistic` is what its scores are made from, called by its kind; `gram` is what an update needs;
    `previous` is an earlier mask of it.
    """

    name: str
    digest: str
    dtype: str
    shape: list[int]
    start: int
    axes: str | None = None
    out_parts: list[int] = []
    rule: Rule = "shape"
    statistic: PlannedTensor | None = None
    gram: PlannedTensor | None = None
    previous: list[MaskPart] | None = None

    @property
    def inputs(self) -> dict[str, object]:
        """Everything about it that masks depend on."""
        unused = {"out_parts"} if self.axes is None else set[str]()
        return self.model_dump(exclude={"name", "previous", "rule"} | unused, exclude_none=True)

    @property
    def layout(self) -> Layout | None:
        """How it is made of matrices; None: it is one `[out, in]` or a convolution."""
        return None if self.axes is None else Layout.parse(self.axes, out_parts=self.out_parts)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row: of all entries that share a position along the first dimension."""
        return ITEM_BYTES[self.dtype] * math.prod(self.shape[1:])


class Shard(BaseModel):
    """Rows `first` to `last` (exclusive) of the job's tensor number `tensor`, along its first dimension."""

    tensor: int
    first: int
    last: int


def cut(
    tensors: Sequence[PlannedTensor],
    specification: JobSpecification,
    shard_bytes: int = SHARD_BYTES,
    most: int | None = None,
) -> list[Shard]:
    """Cut tensors into shards of whole tile rows, each of at most `shard_bytes` where a tile row allows it.

    Patterns whose budgets belong to the whole tensor, updates that look at all of it, and singular values make one
    shard of it. Stacked matrices are cut between matrices, and a transposed one is a shard. A tensor that is an earlier
    one under another name gets no shards unless a budget may give the two different patterns; `shards_by_tensor` finds
    those of the earlier one.

    Args:
        tensors: All tensors of a job.
        specification: What is to be done with them.
        shard_bytes: Size to aim at.
        most: Shards that a job may have.

    Raises:
        TooManyShardsError: If there are too many shards.
    """
    shards: list[Shard] = []
    firsts, whole = _first_alike(tensors), specification.binding is not None
    for number, tensor in enumerate(tensors):
        if specification.budget is None and firsts[number] != number:
            continue
        rows = tensor.shape[0]
        unit = rows if whole else _unit(tensor, specification.pattern, shard_bytes)
        step = max(1, shard_bytes // max(1, tensor.row_bytes * unit)) * unit
        if most is not None and len(shards) + -(-rows // step) > most:
            raise TooManyShardsError(most)
        shards += [Shard(tensor=number, first=row, last=min(row + step, rows)) for row in range(0, rows, step)]
    return shards


def shards_by_tensor(tensors: Sequence[PlannedTensor], shards: Mapping[int, Shard]) -> list[list[int]]:
    """Give each tensor's shards in order; a tied tensor has those of the first of its kind."""
    own: list[list[int]] = [[] for _ in tensors]
    for index in sorted(shards):
        own[shards[index].tensor].append(index)
    return [mine or own[first] for mine, first in zip(own, _first_alike(tensors), strict=True)]


def _unit(tensor: PlannedTensor, pattern: Pattern, shard_bytes: int) -> int:
    if tensor.layout is not None:
        return 1 if tensor.layout.is_stack else tensor.shape[0]
    assert pattern.shard_rows is not None
    aligned = math.lcm(pattern.shard_rows, BLOCK_ROWS)
    return aligned if aligned * tensor.row_bytes <= shard_bytes else pattern.shard_rows


def _first_alike(tensors: Sequence[PlannedTensor]) -> list[int]:
    seen: dict[str, int] = {}
    return [
        seen.setdefault(tensor.model_dump_json(exclude={"name", "rule"}), number)
        for number, tensor in enumerate(tensors)
    ]


def result_key(
    tensor: PlannedTensor, shard: Shard, specification: JobSpecification, solver: str, solver_version: int
) -> str:
    """Name a shard's result by everything that determines it, the solver's version included."""
    options = specification.options.model_dump(
        include={"pattern", "axis", "ragged", "scores", "spectrum", "time_limit_s"}
    )
    update = specification.update
    return digest_document(
        ({} if update is None else {"update": [str(update), UPDATES_VERSION]})
        | {
            "format": 2,
            "tensor": tensor.inputs,
            "rows": [shard.first, shard.last],
            "options": options,
            "solver": [solver, solver_version],
        }
    )
