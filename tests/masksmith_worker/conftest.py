"""A runner in this process, with a real Valkey and a store of its own."""

import pytest
import safetensors
import safetensors.torch
import torch
from blake3 import blake3

import masksmith as ms
from masksmith.patterns import parse
from masksmith_state.blobs.store import upload_name
from masksmith_state.jobs.model import Plan
from masksmith_state.jobs.shards import PlannedTensor, cut
from masksmith_wire.documents import MasksOptions
from masksmith_wire.headers import header_length, parse_header
from masksmith_worker import runner as runner_module
from masksmith_worker.runner import ShardRunner


@pytest.fixture
def runner(records, store):
    return ShardRunner(records, store, lease_s=30.0)


@pytest.fixture
def submit(records, store):
    """Store tensors, and make a job of them as the service would; gives its id."""

    def submit(tensors, pattern="2:4", *, shard_bytes=2**20, previous=None, **options):
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
        ]
        asked = MasksOptions(pattern=pattern, **options)
        rule = parse(asked.pattern, axis=asked.axis, ragged=asked.ragged)
        job, _ = records.create(
            Plan(options=asked, tensors=planned), cut(planned, rule, shard_bytes, spectrum=asked.spectrum)
        )
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

    monkeypatch.setattr(runner_module.ms, "solve", counted, raising=False)
    return calls
