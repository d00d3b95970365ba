"""A runner in this process, with a real Valkey and a store of its own."""

import pytest
import safetensors
import safetensors.torch
import torch
from blake3 import blake3
from support.shards import specified

import masksmith as ms
from masksmith_state.blobs.names import upload_name
from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.shards import PlannedTensor, cut
from masksmith_wire.headers import header_length, parse_header
from masksmith_worker.runner import ShardRunner
from masksmith_worker.stages import solve as solve_stage


@pytest.fixture
def runner_with(records, store):
    """Make a runner with other settings than `runner` has."""
    return lambda **options: ShardRunner(records, store, **{"lease_s": 30.0} | options)


@pytest.fixture
def runner(runner_with):
    return runner_with()


@pytest.fixture
def submit(records, store):
    """Store tensors, and make a job of them as the service would; gives its id."""

    def submit(tensors, pattern="2:4", *, shard_bytes=2**20, previous=None, only=None, **options):
        tensors = {name: torch.as_tensor(tensor) for name, tensor in tensors.items()}
        data = safetensors.torch.save(tensors)
        digest = blake3(data).hexdigest()
        store.put(upload_name(digest), data)
        header = parse_header(data[8 : 8 + header_length(data)])
        planned = [
            PlannedTensor(
                name=name,
                digest=digest,
                dtype=entry.dtype,
                shape=list(entry.shape),
                start=entry.start,
                previous=(previous or {}).get(name),
            )
            for name, entry in sorted(header.tensors.items())
            if only is None or name in only
        ]
        specification = specified(pattern, **options)
        plan = MasksPlan(options=specification.options, tensors=planned)
        job, _ = records.create(plan, cut(planned, specification, shard_bytes))
        return job

    return submit


@pytest.fixture
def solves(monkeypatch):
    """Counts the solves."""
    calls = []
    solve = ms.solve

    def counted(*args, **options):
        calls.append(args)
        return solve(*args, **options)

    monkeypatch.setattr(solve_stage.ms, "solve", counted, raising=False)
    return calls
