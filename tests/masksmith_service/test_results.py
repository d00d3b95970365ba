"""Files of results: what is checked before the first byte is sent."""

import pytest

from masksmith_service.jobs import results
from masksmith_state.blobs.store import BlobStore
from masksmith_state.errors import DamagedBlobError


@pytest.mark.parametrize("verified_bytes", [0, results.VERIFIED_BYTES])
def test_an_intact_blob_of_another_size_is_not_sent(tmp_path, monkeypatch, verified_bytes):
    monkeypatch.setattr(results, "VERIFIED_BYTES", verified_bytes)
    store = BlobStore(str(tmp_path / "blobs"), create=True)
    store.put("results/a", b"12345")
    with pytest.raises(DamagedBlobError):
        results.ResultsFile(None, "masks", b"", [("results/a", 4, None)]).check(store)
    results.ResultsFile(None, "masks", b"", [("results/a", 5, None)]).check(store)
