"""Adds the shards that write an output's files, each behind those that solve the tensors of the file after it."""

from __future__ import annotations

from collections.abc import Sequence

from .costs import OVERHEAD_S
from .outputs import PlannedOutput
from .shards import PlannedTensor, Shard

WRITE_S = 4e-9
"""Seconds for each byte of a file that is read, masked, hashed and written."""


def with_file_shards(
    shards: Sequence[Shard], tensors: Sequence[PlannedTensor], output: PlannedOutput | None
) -> list[Shard]:
    """Order shards by file, and put the writing of each file where its tensors are probably solved.

    A worker that takes the writing of a file waits for shards that others have taken, and solves those that nobody has.
    """
    if output is None:
        return list(shards)
    numbers = {file.source.location: number for number, file in enumerate(output.files)}
    by_file: list[list[Shard]] = [[] for _ in output.files]
    for shard in shards:
        source = tensors[shard.tensor].source
        assert source is not None
        by_file[numbers[source.location]].append(shard)
    ordered: list[Shard] = []
    for number, own in enumerate(by_file):
        ordered += own
        if number > 0:
            ordered.append(_writing(number - 1, output))
    return [*ordered, _writing(len(by_file) - 1, output)]


def _writing(number: int, output: PlannedOutput) -> Shard:
    seconds = round(OVERHEAD_S + WRITE_S * output.files[number].bytes, 4)
    # Not long: a long shard is taken before its job's other ones, and would find its tensors unsolved.
    return Shard(tensor=0, first=0, last=0, file=number, cost_s=seconds)
