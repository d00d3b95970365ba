"""The masks file of an output whose masks are lost, and solved again with another result, while it is written."""

from types import SimpleNamespace

import pytest
from blake3 import blake3

from masksmith_state.blobs.names import result_name
from masksmith_state.blobs.store import BlobStore
from masksmith_state.errors import DamagedBlobError
from masksmith_state.jobs.reports import ShardReport
from masksmith_worker.output.finish import _masks
from masksmith_worker.output.results import ShardResults

KEY = "ab" * 32


@pytest.mark.parametrize("second", [b"\xaa" * 8, b"\x55" * 8], ids=["the same mask", "another mask"])
def test_a_header_never_has_the_digests_of_other_masks(tmp_path, second):
    store = BlobStore(str(tmp_path / "store"), create=True)

    def put(mask):
        return ShardReport(result=KEY, mask_digest=store.put(result_name(KEY), mask), pattern="2:4")

    first = put(b"\xaa" * 8)
    results = ShardResults(store, lambda: {0: first}, lambda index: put(second))
    tensor = SimpleNamespace(name="w", shape=[8, 8], axes=None, out_parts=[], pattern="2:4")
    work = SimpleNamespace(
        plan=SimpleNamespace(options=SimpleNamespace(pattern="2:4", ragged="pad", axis="in"), tensors=[tensor]),
        shards_by_tensor=[[0]],
        shards=[SimpleNamespace(first=0, last=8)],
        results=results,
        check=lambda: None,
    )
    pieces = _masks(work, [[results.report(0)]], blake3())
    assert first.mask_digest.encode() in next(pieces)
    store.objects.delete(result_name(KEY))
    if second == b"\xaa" * 8:
        assert next(pieces) == second
        return
    with pytest.raises(DamagedBlobError):
        next(pieces)
