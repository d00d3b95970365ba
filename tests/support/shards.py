"""Run shards in this process, and read their results."""

from pathlib import Path

import numpy as np

from masksmith_state.blobs.names import result_name
from masksmith_wire.documents import MasksOptions
from masksmith_wire.masks import unpack
from masksmith_wire.specification import JobSpecification
from support.leases import run_shard

WEIGHT = np.random.default_rng(0).standard_normal((32, 48)).astype(np.float32)
TRANSPOSABLE = "transposable 2:4"


def specified(pattern, **options):
    return JobSpecification.parse(MasksOptions(pattern=pattern, **options))


def run_all(runner, job):
    return [run_shard(runner, job, shard) for shard in runner.records.shards(job)]


def mask_of(runner, job, tensor=0):
    """Return a tensor's mask, concatenated from the results of its shards."""
    reports, parts = runner.records.reports(job), []
    record = runner.records.read(job)
    for index, shard in runner.records.shards(job).items():
        if shard.tensor == tensor:
            packed = np.frombuffer(runner.store.get(result_name(reports[index].result)), np.uint8)
            parts.append(unpack(packed, (shard.last - shard.first, *record.plan.tensors[tensor].shape[1:])))
    return np.concatenate(parts)


def files(store):
    """Return the names of the files of a store, without folders; lists of digests are left out."""
    root = Path(store.url)
    paths = [path for path in root.rglob("*") if path.is_file() and path.relative_to(root).parts[0] != "pieces"]
    return sorted(path.name for path in paths)
