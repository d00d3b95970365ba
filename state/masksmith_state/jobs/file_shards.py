"""Adds the shards that write an output's files of weights.

The shard of a file is queued behind those that solve the tensors of the next file, if there is one.
"""

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
    """Order shards by file; insert the shard that writes a file where the file's tensors have probably been solved.

    Without an output, the shards stay as they are. A worker that writes a file waits for the shards of the file's
    tensors that other workers have taken, and solves the rest.
    """
    if output is None:
        return list(shards)
    numbers = {file.source.location: number for number, file in enumerate(output.files)}
    by_file: list[list[Shard]] = [[] for _ in output.files]
    for shard in shards:
        source = tensors[shard.tensor].source
        assert source is not None  # The tensors of a job with an output are in roots.
        by_file[numbers[source.location]].append(shard)
    ordered: list[Shard] = []
    for number, shards_of_file in enumerate(by_file):
        ordered += shards_of_file
        if number > 0:
            ordered.append(_file_shard(number - 1, output))
    return [*ordered, _file_shard(len(by_file) - 1, output)]


def _file_shard(number: int, output: PlannedOutput) -> Shard:
    """The shard that writes the file of weights `number` of an output; it has no rows of a tensor."""
    seconds = round(OVERHEAD_S + WRITE_S * output.files[number].bytes, 4)
    # Never `is_long`: long shards are taken before the other shards of a job, when no tensor is solved yet.
    return Shard(tensor=0, first=0, last=0, file=number, cost_s=seconds)
