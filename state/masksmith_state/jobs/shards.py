"""The tensors of a job, and the shards into which they are split, which workers take one at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache, partial

from pydantic import BaseModel

from masksmith.layouts import ITEM_BYTES, WHOLE_BYTES, Layout, Rule
from masksmith.patterns import Pattern
from masksmith_state.errors import TooManyShardsError
from masksmith_wire.digests import digest_document
from masksmith_wire.scores import SCORES_VERSION
from masksmith_wire.specification import JobSpecification
from masksmith_wire.updates import UPDATES_VERSION

from .costs import GRAM_S, OVERHEAD_S, TARGET_S, estimated_seconds

SHARD_BYTES = 16 * 2**20
"""Target size of a shard."""
BLOCK_SIDE = 16
"""Rows and columns of a block; the report of a shard counts the blocks that have a kept entry.

Shards begin at multiples of this many rows if possible, so that each shard consists of whole blocks.
"""


class Source(BaseModel):
    """A file in a root, as it was when the job was submitted.

    `version` changes when the file is written: it is the file's ETag, or its size and the time of its last change.
    """

    location: str
    version: str


class MaskPart(BaseModel):
    """Rows `first` to `last` (exclusive) of a stored mask: bools if `is_bool`, else packed bits.

    The rows begin at byte `start` of the file `source`; without a source, of the blob `blob` of the store. If the blob
    is a result of an earlier job, `result` is the key of that result, and `digest` that of the packed mask, if known;
    else `result` is None.
    """

    blob: str = ""
    result: str | None = None
    digest: str | None = None
    source: Source | None = None
    start: int
    first: int
    last: int
    is_bool: bool = False


class PlannedTensor(BaseModel):
    """A tensor located in an upload, or in a file of a root.

    Attributes:
        name: Name of the weight; for a statistic, the kind of statistic.
        digest: Digest of the upload; empty if the tensor is in a root.
        source: The file in a root; None if the tensor is in an upload.
        dtype: Dtype as in safetensors headers, such as `BF16`.
        start: Byte offset of the data from the beginning of the file.
        axes: Axes of the layout; None if the tensor is one matrix `[out, in]` or a convolution.
        out_parts: Rows of each fused part along `out`, if the parts are solved separately.
        rule: Which rule decided the layout.
        statistic: Calibration statistic that the scores are computed from.
        gram: Gram matrix that an update needs.
        previous: Parts of the weight's previous mask.
        pattern: The tensor's own pattern; None if it has the job's pattern.
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
        """All properties on which the scores, masks and updated weights depend, except the pattern."""
        unused = {"out_parts"} if self.axes is None else set[str]()
        return self.model_dump(exclude={"name", "previous", "rule", "pattern"} | unused, exclude_none=True)

    @property
    def layout(self) -> Layout | None:
        """How the tensor is made of matrices; None if it is one matrix `[out, in]` or a convolution."""
        return None if self.axes is None else Layout.parse(self.axes, out_parts=self.out_parts)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row: of all entries that share a position along the first dimension."""
        return ITEM_BYTES[self.dtype] * math.prod(self.shape[1:])


class Shard(BaseModel):
    """A piece of a job: rows of a tensor to solve, or a file of weights to write.

    Attributes:
        tensor: Number of the tensor; 0 if the shard writes a file.
        first, last: The rows from `first` to `last` (exclusive) along the tensor's first dimension; 0 if the shard
            writes a file.
        file: Number of the output's file of weights that the shard writes; None for rows of a tensor.
        cost_s: Seconds that the shard is expected to take.
        is_long: Whether the shard is expected to take longer than `TARGET_S` plus `OVERHEAD_S`.
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
    """Split tensors into shards of whole tile rows, each within `shard_bytes` and `_target_s` seconds if it can be cut.

    A tensor becomes a single shard if its pattern's budget belongs to the whole tensor, if its update depends on all
    rows, or if singular values are computed. A tied tensor (an earlier tensor under another name) gets no shards,
    unless a budget may assign different patterns to the two; `shards_by_tensor` returns the shards of the earlier
    tensor for it. Stacked matrices are cut between matrices; a matrix that is transposed, or whose fused parts are
    solved separately, is a single shard.

    Args:
        tensors: All tensors of a job.
        specification: The job's specification.
        shard_bytes: Target size of a shard.
        max_shards: Limit of the number of shards.

    Raises:
        TooManyShardsError: If there are too many shards.
    """
    shards: list[Shard] = []
    first_numbers = _first_with_equal_data(tensors)
    with_own_pattern = cache(specification.with_own_pattern)
    for number, tensor in enumerate(tensors):
        if specification.budget is None and first_numbers[number] != number:
            continue
        rows, pattern = tensor.shape[0], with_own_pattern(tensor.pattern).pattern
        is_whole = specification.whole_tensor_needed_by(pattern) is not None
        unit = rows if is_whole else _unit_rows(tensor, pattern, shard_bytes)
        estimate = partial(estimated_seconds, specification, tensor.shape, layout=tensor.layout)
        units_by_bytes = shard_bytes // max(1, tensor.row_bytes * unit)
        units_by_seconds = int(_target_s(tensor) / max(estimate(unit) - OVERHEAD_S, 1e-9))
        step = max(1, min(units_by_bytes, units_by_seconds)) * unit
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
    """Target of the seconds of a shard.

    If each shard must read and scale a Gram matrix of more than `WHOLE_BYTES` first, the target is four times the
    seconds for that.
    """
    gram = tensor.gram
    gram_bytes = 0 if gram is None else gram.shape[0] * gram.row_bytes
    return TARGET_S if gram_bytes <= WHOLE_BYTES else 4 * GRAM_S * gram_bytes


def shards_by_tensor(tensors: Sequence[PlannedTensor], shards: Mapping[int, Shard]) -> list[list[int]]:
    """Indices of each tensor's shards, in order; for one without shards, those of the first tensor with equal data."""
    by_tensor: list[list[int]] = [[] for _ in tensors]
    for index in sorted(shards):
        if shards[index].file is None:
            by_tensor[shards[index].tensor].append(index)
    first_numbers = _first_with_equal_data(tensors)
    return [indices or by_tensor[first] for indices, first in zip(by_tensor, first_numbers, strict=True)]


def _unit_rows(tensor: PlannedTensor, pattern: Pattern, shard_bytes: int) -> int:
    """Number of rows that stay together: each shard but the last has a multiple of it."""
    if tensor.layout is not None:
        return 1 if tensor.layout.is_stack else tensor.shape[0]
    assert pattern.shard_rows is not None
    aligned = math.lcm(pattern.shard_rows, BLOCK_SIDE)
    return aligned if aligned * tensor.row_bytes <= shard_bytes else pattern.shard_rows


def _first_with_equal_data(tensors: Sequence[PlannedTensor]) -> list[int]:
    """For each tensor, the number of the first tensor that differs from it at most in name and rule."""
    numbers: dict[str, int] = {}
    return [
        numbers.setdefault(tensor.model_dump_json(exclude={"name", "rule"}), number)
        for number, tensor in enumerate(tensors)
    ]


def result_key(
    tensor: PlannedTensor, shard: Shard, specification: JobSpecification, solver: str, solver_version: int
) -> str:
    """Key of a shard's result: the digest of everything that determines it, including versions of solver and scores.

    The specification is the job's with the tensor's own pattern.
    """
    options = specification.options.model_dump(
        include={"pattern", "axis", "ragged", "scores", "spectrum", "time_limit_s"}
    )
    update = specification.update
    return digest_document(
        ({} if update is None else {"update": [str(update), UPDATES_VERSION]})
        | {
            "format": 3,
            "tensor": tensor.inputs,
            "rows": [shard.first, shard.last],
            "options": options,
            "scores_version": SCORES_VERSION,
            "solver": [solver, solver_version],
        }
    )
