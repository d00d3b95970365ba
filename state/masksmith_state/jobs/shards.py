"""Splits tensors into shards, the unit of work of one task: whole tile rows of a tensor, bounded in bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache, partial

from pydantic import BaseModel

from masksmith.layouts import ITEM_BYTES, WHOLE_BYTES, Layout, Rule
from masksmith.patterns import Pattern
from masksmith_state.errors import TooManyShardsError
from masksmith_wire.digests import digest_document
from masksmith_wire.specification import JobSpecification
from masksmith_wire.updates import UPDATES_VERSION

from .costs import GRAM_S, OVERHEAD_S, TARGET_S, estimated_seconds

SHARD_BYTES = 16 * 2**20
BLOCK_ROWS = 16
"""Shards begin at multiples of this many rows if possible, so that storage blocks can be counted per shard."""


class Source(BaseModel):
    """A file in a root, as it was when the job began.

    `version` is what changes when the file is written: its ETag, or size and time of change.
    """

    location: str
    version: str


class MaskPart(BaseModel):
    """Output rows `first` to `last` (exclusive) of a stored mask, packed or bool, from byte `start` of a file.

    The file is a blob of the store, or in a root, if it has a `source`.
    """

    blob: str = ""
    source: Source | None = None
    start: int
    first: int
    last: int
    is_bool: bool = False


class PlannedTensor(BaseModel):
    """A tensor located in an upload, or in a file of a root.

    Attributes:
        name: Name of the weight; of a statistic, its kind.
        digest: Digest of the upload; empty if it is in a root.
        source: The file in a root; None if it is in an upload.
        start: Byte offset of the data from the beginning of the file.
        axes: Axes of its layout; None if it is one matrix `[out, in]` or a convolution.
        out_parts: Rows of each of its fused parts, if these are solved separately.
        rule: Which rule decided the layout.
        statistic: Calibration statistic that the scores are computed from.
        gram: Gram matrix that an update needs.
        previous: Parts of the weight's previous mask.
        pattern: Its own pattern; None if all tensors have the job's.
    """

    name: str
    digest: str = ""
    source: Source | None = None
    dtype: str
    shape: list[int]
    start: int
    axes: str | None = None
    out_parts: list[int] = []
    rule: Rule = "shape"
    statistic: PlannedTensor | None = None
    gram: PlannedTensor | None = None
    previous: list[MaskPart] | None = None
    pattern: str | None = None

    @property
    def inputs(self) -> dict[str, object]:
        """Every property that the masks depend on, besides the pattern."""
        unused = {"out_parts"} if self.axes is None else set[str]()
        return self.model_dump(exclude={"name", "previous", "rule", "pattern"} | unused, exclude_none=True)

    @property
    def layout(self) -> Layout | None:
        """How it is made of matrices; None: it is one `[out, in]` or a convolution."""
        return None if self.axes is None else Layout.parse(self.axes, out_parts=self.out_parts)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row: of all entries that share a position along the first dimension."""
        return ITEM_BYTES[self.dtype] * math.prod(self.shape[1:])


class Shard(BaseModel):
    """Rows `first` to `last` (exclusive) of the job's tensor number `tensor`, along its first dimension.

    Attributes:
        file: Number of the file of weights that is written, if this is no part of a tensor.
        cost_s: Seconds that it is expected to take.
        is_long: Whether it takes long and cannot be cut.
    """

    tensor: int
    first: int
    last: int
    file: int | None = None
    cost_s: float = 1.0
    is_long: bool = False


def cut(
    tensors: Sequence[PlannedTensor],
    specification: JobSpecification,
    shard_bytes: int = SHARD_BYTES,
    max_shards: int | None = None,
) -> list[Shard]:
    """Split tensors into shards of whole tile rows, each of at most `shard_bytes` and `TARGET_S` if it can be cut.

    A tensor becomes a single shard if its pattern's budget belongs to the whole tensor, if its update depends on all
    rows, or if singular values are computed. A tied tensor (an earlier one under another name) gets no shards of its
    own, unless a budget may assign the two different patterns; `shards_by_tensor` returns those of the earlier one.
    Stacked matrices are cut between matrices; a transposed matrix is a single shard.

    Args:
        tensors: All tensors of a job.
        specification: The job's specification.
        shard_bytes: Target size of a shard.
        max_shards: Limit of the number of shards.

    Raises:
        TooManyShardsError: If there are too many shards.
    """
    shards: list[Shard] = []
    firsts, of_pattern = _first_with_equal_data(tensors), cache(specification.with_own_pattern)
    for number, tensor in enumerate(tensors):
        if specification.budget is None and firsts[number] != number:
            continue
        rows, pattern = tensor.shape[0], of_pattern(tensor.pattern).pattern
        is_whole = specification.whole_tensor_needed_by(pattern) is not None
        unit = rows if is_whole else _shard_rows(tensor, pattern, shard_bytes)
        estimate = partial(estimated_seconds, specification, tensor.shape, is_stack=tensor.layout is not None)
        by_bytes, by_seconds = (
            shard_bytes // max(1, tensor.row_bytes * unit),
            int(_target_s(tensor) / max(estimate(unit) - OVERHEAD_S, 1e-9)),
        )
        step = max(1, min(by_bytes, by_seconds)) * unit
        if max_shards is not None and len(shards) + -(-rows // step) > max_shards:
            raise TooManyShardsError(max_shards)
        for row in range(0, rows, step):
            last = min(row + step, rows)
            seconds = round(estimate(last - row), 4)
            shards.append(
                Shard(tensor=number, first=row, last=last, cost_s=seconds, is_long=seconds > TARGET_S + OVERHEAD_S)
            )
    return shards


def _target_s(tensor: PlannedTensor) -> float:
    """Target of the seconds of a shard: higher if each shard must read and scale a large Gram matrix first."""
    gram = tensor.gram
    gram_bytes = 0 if gram is None else gram.shape[0] * gram.row_bytes
    return TARGET_S if gram_bytes <= WHOLE_BYTES else 4 * GRAM_S * gram_bytes


def shards_by_tensor(tensors: Sequence[PlannedTensor], shards: Mapping[int, Shard]) -> list[list[int]]:
    """Indices of each tensor's shards, in order; a tied tensor has those of the first tensor with the same data."""
    own: list[list[int]] = [[] for _ in tensors]
    for index in sorted(shards):
        if shards[index].file is None:
            own[shards[index].tensor].append(index)
    return [indices or own[first] for indices, first in zip(own, _first_with_equal_data(tensors), strict=True)]


def _shard_rows(tensor: PlannedTensor, pattern: Pattern, shard_bytes: int) -> int:
    if tensor.layout is not None:
        return 1 if tensor.layout.is_stack else tensor.shape[0]
    assert pattern.shard_rows is not None
    aligned = math.lcm(pattern.shard_rows, BLOCK_ROWS)
    return aligned if aligned * tensor.row_bytes <= shard_bytes else pattern.shard_rows


def _first_with_equal_data(tensors: Sequence[PlannedTensor]) -> list[int]:
    """For each tensor, the number of the first tensor with the same data and options."""
    numbers: dict[str, int] = {}
    return [
        numbers.setdefault(tensor.model_dump_json(exclude={"name", "rule"}), number)
        for number, tensor in enumerate(tensors)
    ]


def result_key(
    tensor: PlannedTensor, shard: Shard, specification: JobSpecification, solver: str, solver_version: int
) -> str:
    """Key of a shard's result: the digest of everything that determines it, including the solver's version."""
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
