"""Measure stage: makes the report of a shard from its mask, and compares the mask with the previous one."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

import masksmith as ms
from masksmith import measures
from masksmith_state.blobs.names import digest_of_upload, result_name
from masksmith_state.errors import DamagedBlobError
from masksmith_state.jobs.reports import ShardReport
from masksmith_state.jobs.shards import BLOCK_SIDE, MaskPart, Shard
from masksmith_wire import masks
from masksmith_wire.dtypes import to_numpy
from masksmith_wire.measures import DiversityReport, SpectrumReport

from .load import InputReader
from .update import UpdatedShard
from .work import ShardWork


class PreviousMissingError(Exception):
    """The previous mask is no longer in the store, or was damaged there.

    Attributes:
        is_upload: Whether it is in an uploaded file; otherwise it is the result of an earlier job.
    """

    def __init__(self, parts: list[MaskPart]) -> None:
        self.is_upload = any(digest_of_upload(part.blob) is not None for part in parts)
        origin = "of the masks file" if self.is_upload else "of the job"
        super().__init__(f"the mask {origin} given as `previous` was deleted or damaged meanwhile; omit `previous`")


def measure_shard(work: ShardWork, solution: ms.Solution, updated: UpdatedShard | None, key: str) -> ShardReport:
    """Make the report of a shard; `key` is the key of its result in the store.

    Raises:
        ScoresError: If the sums of the tensor's reports may exceed float64.
    """
    shard, rows = work.shard, work.tensor.shape[0]
    layout = work.tensor.layout
    counts = measures.count(solution.mask, (BLOCK_SIDE, BLOCK_SIDE), layout, solution.pattern)
    # The report counts blocks of `BLOCK_SIDE` under every pattern, if no block is divided between shards. With a layout
    # no block is divided, since a shard consists of whole matrices.
    has_whole_blocks = layout is not None or (
        shard.first % BLOCK_SIDE == 0 and (shard.last % BLOCK_SIDE == 0 or shard.last == rows)
    )
    # Diversity depends only on the pattern, so only the report of a tensor's first shard has it.
    report = ShardReport(
        result=key,
        status=solution.status.value,
        objective=solution.objective,
        upper_bound=solution.upper_bound,
        total_score=solution.total_score,
        kept_score=solution.unshifted_objective,
        kept=solution.kept,
        entries=math.prod(solution.mask.shape),
        solve_s=solution.stats["solve_s"],
        solver=solution.stats["solver"],
        device=str(solution.stats.get("device", "cpu")),
        blocks=counts.blocks if has_whole_blocks else None,
        two_four=counts.is_two_four,
        hybrid=counts.hybrid,
        diversity=_diversity(solution.pattern) if shard.first == 0 else None,
        spectrum=_spectrum(work, solution, updated) if work.specification.options.spectrum else None,
        update=None if updated is None else updated.report,
    )
    _check_sums(report, math.prod(work.tensor.shape))
    return report


def _check_sums(report: ShardReport, tensor_entries: int) -> None:
    """Refuse a shard whose sums are so large that the sums over all shards of the tensor could exceed float64.

    The limit is half the largest float64, times the shard's share of the tensor's entries. A shard that is the whole
    tensor has no limit: the library refuses scores whose sum is infinite.
    """
    sums = [report.objective, report.total_score, report.kept_score or 0.0]
    if report.upper_bound < math.inf:  # A solver without a bound reports infinity.
        sums.append(report.upper_bound)
    if report.update is not None:
        sums += [report.update.error, report.update.masked_error, report.update.energy]
    share = report.entries / tensor_entries
    if share < 1 and max(sums) > sys.float_info.max / 2 * share:
        raise ms.ScoresError("the sums of scores or errors may exceed float64; scale the tensor down")


def compare_shard(work: ShardWork, report: ShardReport) -> ShardReport:
    """Return a shard's report; with the numbers of entries added and dropped, if the tensor has a previous mask.

    Raises:
        PreviousMissingError: If the previous mask no longer exists, or is damaged.
        ChangedSourceError: If the previous mask is in a root, and its file has changed since the job was submitted.
    """
    tensor, shard = work.tensor, work.shard
    if tensor.previous is None:
        return report
    assert report.result is not None
    shape = (shard.last - shard.first, *tensor.shape[1:])
    packed = np.frombuffer(work.store.get(result_name(report.result), report.mask_digest), np.uint8)
    current = packed.reshape(shape[0], -1)
    try:
        previous = np.concatenate([*_packed_rows(work.inputs, tensor.previous, shard, shape)])
    except (FileNotFoundError, DamagedBlobError):
        raise PreviousMissingError(tensor.previous) from None
    differences = current & ~previous, previous & ~current
    added, dropped = (int(np.bitwise_count(bits).sum(dtype=np.int64)) for bits in differences)
    return report.model_copy(update={"added": added, "dropped": dropped})


def _packed_rows(
    inputs: InputReader, parts: list[MaskPart], shard: Shard, shape: tuple[int, ...]
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the shard's rows of a stored mask, part by part, as packed bits; `shape` is the shape of the shard."""
    for part in parts:
        first, last = max(part.first, shard.first), min(part.last, shard.last)
        if first >= last:
            continue
        width = math.prod(shape[1:]) if part.is_bool else masks.packed_bytes(shape[1:])
        start, stop = (part.start + (row - part.first) * width for row in (first, last))
        stored, part_shape = np.frombuffer(_read(inputs, part, start, stop), np.uint8), (last - first, *shape[1:])
        if part.is_bool:
            stored = masks.pack(stored.reshape(part_shape) != 0)
        elif shape[-1] % 8:
            # Another program may have set unused bits, which must not count as entries.
            stored = masks.pack(masks.unpack(stored, part_shape))
        yield stored.reshape(last - first, -1)


def _read(inputs: InputReader, part: MaskPart, start: int, stop: int) -> bytes:
    """Read the bytes from `start` to `stop` (exclusive) of the file or blob that contains a part of a mask."""
    if part.source is not None:
        return inputs.source_bytes(part.source, start, stop)
    return inputs.store.get_range(part.blob, start, stop, part.digest)


def _diversity(pattern: ms.Pattern) -> DiversityReport | None:
    if not isinstance(pattern, ms.NM):
        return None
    diversity = ms.diversity(pattern)
    count = None if diversity.count is None else str(diversity.count)
    members = {name: getattr(diversity, name) for name in DiversityReport.model_fields}
    return DiversityReport(**members | {"count": count})


def _spectrum(work: ShardWork, solution: ms.Solution, updated: UpdatedShard | None) -> SpectrumReport:
    """Summarise the singular values of the masked weight; with the option `spectrum`, a shard is a whole tensor."""
    tensor = work.tensor
    weight = work.inputs.rows(tensor) if updated is None else to_numpy(updated.data, tensor.dtype, tuple(tensor.shape))
    values = measures.spectrum(weight, solution.mask, tensor.layout)
    return SpectrumReport(least=values.least, mean=values.mean, most=values.most)
