"""Retention with a clock that tests set, and what fills its store: uploads, jobs and a worker's results."""

import pytest
from support.leases import take

from masksmith_state.blobs.names import result_name, result_report_name, upload_name
from masksmith_state.blobs.references import BlobReferences
from masksmith_state.blobs.retention import Retention
from masksmith_state.jobs.model import Admission
from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.reports import ShardReport
from masksmith_state.jobs.shards import PlannedTensor, Shard
from masksmith_wire.documents import MasksOptions

UPLOAD_AGE_S, RESULT_AGE_S = 100.0, 1000.0


class Clock:
    """The server's time and what was added to it."""

    def __init__(self, records):
        self._records, self.ahead = records, 0.0

    def __call__(self):
        return self._records.now() + self.ahead


@pytest.fixture
def references(records, store):
    return BlobReferences(records.redis, store)


@pytest.fixture
def retention(records, references, store):
    return Retention(records, references, store, RESULT_AGE_S, UPLOAD_AGE_S, Clock(records))


@pytest.fixture
def sweep(retention):
    """Sweep so many seconds from now."""

    def sweep(ahead_s, *, orphans=False):
        retention.clock.ahead = ahead_s
        return retention.sweep(orphans=orphans)

    return sweep


@pytest.fixture
def upload(references, store):
    def upload(letter="a", owner="ann", size=10, most=None):
        store.put(upload_name(letter * 64), bytes(size))
        return references.link(owner, letter * 64, size, most)

    return upload


@pytest.fixture
def job(records):
    """Make a job of one shard that reads uploads."""

    def job(*letters, owner="ann", uploaders="owner", **limits):
        tensors = [PlannedTensor(name=x, digest=x * 64, dtype="F32", shape=[4, 16], start=8) for x in letters]
        plan = MasksPlan(options=MasksOptions(pattern="2:4"), tensors=tensors)
        admission = Admission(owner=owner, uploaders=uploaders, **limits)
        return records.create(plan, [Shard(tensor=0, first=0, last=4)], admission=admission)[0]

    return job


@pytest.fixture
def finish(records, references, store):
    """Do a worker's part."""

    def finish(job, result="f" * 64):
        lease = take(records, job, 0, lease_s=60, attempts=3)
        assert references.add_result_reference(job, result)
        store.put(result_name(result), b"mask")
        store.put(result_report_name(result), b"{}")
        assert records.complete(lease, ShardReport(result=result))

    return finish


def names(store):
    return {name for folder in ("tensors", "masks", "statistics") for name, _ in store.list(folder)}
