"""Results are kept while a job refers to them: one that lists them, or a live one that reads them."""

import pytest

from masksmith_state.blobs.names import result_name, upload_name
from masksmith_state.errors import MissingResultError, UnreadableRecordError
from masksmith_state.jobs.model import Admission
from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.shards import MaskPart, PlannedTensor, Shard
from masksmith_wire.documents import MasksOptions

from .conftest import names


def test_a_result_stays_while_another_job_has_it(upload, store, job, finish, records, retention):
    upload(owner="ann")
    upload(owner="bob")
    one, other = job("a"), job("a", owner="bob")
    finish(one)
    finish(other)
    records.delete(one)
    assert retention.delete_unreferenced_results() == 0
    assert result_name("f" * 64) in names(store)
    records.delete(other)
    assert retention.delete_unreferenced_results() == 1
    assert names(store) == {upload_name("a" * 64)}


def test_a_live_job_references_a_result_before_it_reads_it(upload, store, job, finish, records, retention, references):
    upload()
    one, other = job("a"), job("a")
    finish(one)
    records.delete(one)
    assert references.add_result_reference(other, "f" * 64)
    assert retention.delete_unreferenced_results() == 0
    assert result_name("f" * 64) in names(store)


@pytest.mark.parametrize("end", ["cancel", "delete", "set aside"])
def test_a_result_that_a_live_job_reads_is_kept_until_its_end(upload, store, job, finish, records, retention, end):
    upload()
    earlier = job("a")
    finish(earlier)
    part = MaskPart(blob=result_name("f" * 64), result="f" * 64, start=0, first=0, last=4)
    tensor = PlannedTensor(name="a", digest="a" * 64, dtype="F32", shape=[4, 16], start=8, previous=[part])
    plan = MasksPlan(options=MasksOptions(pattern="2:4"), tensors=[tensor])
    shards, admission = [Shard(tensor=0, first=0, last=4)], Admission(owner="ann", uploaders="owner")
    later = records.create(plan, shards, admission=admission)[0]
    records.delete(earlier)
    assert retention.delete_unreferenced_results() == 0
    assert result_name("f" * 64) in names(store)
    if end == "set aside":
        records.set_aside(UnreadableRecordError(later, "damaged"))
    else:
        getattr(records, end)(later)
    assert retention.delete_unreferenced_results() == 1
    assert names(store) == {upload_name("a" * 64)}
    with pytest.raises(MissingResultError):
        records.create(plan, shards, admission=admission)


def test_an_ended_job_holds_no_references(upload, job, records, references):
    upload()
    made = job("a")
    records.cancel(made)
    assert not references.add_result_reference(made, "e" * 64)
    records.delete(made)
    assert not references.add_result_reference(made, "e" * 64)
    assert records.redis.keys("*" + "e" * 64 + "*") == []
