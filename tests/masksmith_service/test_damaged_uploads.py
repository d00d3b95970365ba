"""Uploads whose header cannot be read: damaged ones are forgotten, and nothing else is."""

from masksmith_state.errors import DamagedBlobError
from masksmith_wire.headers import HeaderError


def test_a_damaged_upload_that_another_request_has_sent_again_stays(client, app, put, good, on_disk, monkeypatch):
    digest, store = put(good), app.state.masksmith.store
    document = {"pattern": "2:4", "tensors": [{"name": "w", "digest": digest, "key": "layer.weight"}]}
    path = on_disk.path / "tensors" / digest[:2] / digest
    path.write_bytes(bytes(9) + good[9:])
    read = store.get_range

    def read_and_send_again(*args):
        try:
            return read(*args)
        except DamagedBlobError:
            put(good)
            raise

    with monkeypatch.context() as patch:
        patch.setattr(store, "get_range", read_and_send_again)
        assert client.post("/v1/jobs", json=document).json()["code"] == "upload_damaged"
    assert path.read_bytes() == good
    assert client.post("/v1/jobs", json=document).status_code == 202


def test_an_intact_upload_with_a_header_that_is_refused_stays(client, put, good, on_disk, monkeypatch):
    """A later version may be stricter than the one that received it."""
    digest = put(good)
    document = {"pattern": "2:4", "tensors": [{"name": "w", "digest": digest, "key": "layer.weight"}]}

    def refuse(_text):
        raise HeaderError("no such dtype")

    with monkeypatch.context() as patch:
        patch.setattr("masksmith_service.jobs.upload_headers.parse_header", refuse)
        problem = client.post("/v1/jobs", json=document).json()
    assert (problem["code"], problem["detail"]) == ("invalid_safetensors", f"upload {digest}: no such dtype")
    assert (on_disk.path / "tensors" / digest[:2] / digest).read_bytes() == good
    assert client.post("/v1/jobs", json=document).status_code == 202
