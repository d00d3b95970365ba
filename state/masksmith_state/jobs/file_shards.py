"""Adds the shards that write the files of an output: each of them after the shards of the next file's tensors."""

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
    """Order shards by file, and insert the shard that writes a file where the file's tensors have probably been solved.

    A worker that writes a file waits for the shards of its tensors that other workers have taken, and solves the rest.
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
    for number, shards_of_file in enumerate(by_file):
        ordered += shards_of_file
        if number > 0:
            ordered.append(_file_shard(number - 1, output))
    return [*ordered, _file_shard(len(by_file) - 1, output)]


def _file_shard(number: int, output: PlannedOutput) -> Shard:
    """The shard that writes file `number` of an output."""
    seconds = round(OVERHEAD_S + WRITE_S * output.files[number].bytes, 4)
    # Never `is_long`: long shards are taken before the other shards of a job, when no tensor is solved yet.
    return Shard(tensor=0, first=0, last=0, file=number, cost_s=seconds)
