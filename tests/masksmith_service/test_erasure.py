"""An upload is deleted at once by who has sent it, and by nobody else."""

from functools import partial

import pytest
from blake3 import blake3
from starlette.testclient import TestClient

from masksmith_service.app import create_app
from masksmith_state.blobs.names import upload_name
from masksmith_state.keys import Keys, Role


class Sender:
    """The client with the key of one sender."""

    def __init__(self, client, token):
        self.store = client.app.state.masksmith.store
        self._client, self._headers = client, {"Authorization": f"Bearer {token}"}

    def __getattr__(self, method):
        return partial(getattr(self._client, method), headers=self._headers)


@pytest.fixture
def senders(settings, records):
    """A sender for each name."""
    keys, app = Keys(records.redis), create_app(settings)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield lambda name, role=Role.USER: Sender(client, keys.create(name, role)[1])


def send(sender, data):
    digest = blake3(data).hexdigest()
    assert sender.put(f"/v1/tensors/{digest}", content=data).status_code in (200, 201)
    return digest


def test_an_upload_is_deleted_at_once(senders, good, on_disk):
    ann = senders("ann")
    digest = send(ann, good)
    assert any(digest in name for name in on_disk.files())
    assert ann.delete(f"/v1/tensors/{digest}").status_code == 204
    assert not any(digest in path.name for path in on_disk.path.rglob("*"))
    assert ann.head(f"/v1/tensors/{digest}").status_code == 404
    response = ann.delete(f"/v1/tensors/{digest}")
    assert (response.status_code, response.json()["code"]) == (404, "upload_not_found")
    assert send(ann, good) == digest


def test_bytes_of_a_deleted_upload_are_not_counted(senders, good, records):
    ann = senders("ann")
    digest = send(ann, good)
    (key,) = records.redis.keys("masksmith:owner:*:bytes")
    assert int(records.redis.get(key)) == len(good)
    ann.delete(f"/v1/tensors/{digest}")
    assert int(records.redis.get(key)) == 0


def test_damaged_copies_are_deleted_too(senders, good, on_disk):
    ann = senders("ann")
    digest = send(ann, good)
    ann.store.set_aside(upload_name(digest))
    send(ann, good)
    assert any(name.startswith("damaged/") for name in on_disk.files())
    assert ann.delete(f"/v1/tensors/{digest}").status_code == 204
    assert not any(digest in path.name for path in on_disk.path.rglob("*"))


def test_an_upload_of_another_key_is_answered_like_an_unknown_one(senders, good):
    ann, bob, ops = senders("ann"), senders("bob"), senders("ops", Role.ADMIN)
    digest = send(ann, good)
    for other in (bob, ops):
        response = other.delete(f"/v1/tensors/{digest}")
        assert (response.status_code, response.json()["code"]) == (404, "upload_not_found")
    assert ann.head(f"/v1/tensors/{digest}").status_code == 200


def test_an_upload_of_two_keys_stays_for_the_other(senders, good):
    ann, bob = senders("ann"), senders("bob")
    digest = send(ann, good)
    send(bob, good)
    assert ann.delete(f"/v1/tensors/{digest}").status_code == 204
    assert ann.head(f"/v1/tensors/{digest}").status_code == 404
    assert bob.head(f"/v1/tensors/{digest}").status_code == 200


def test_an_upload_that_a_job_reads_is_deleted_after_its_end(senders, good):
    ann, bob = senders("ann"), senders("bob")
    job = ann.post("/v1/masks", params={"pattern": "2:4"}, content=good).json()["id"]
    digest = send(bob, good)
    response = ann.delete(f"/v1/tensors/{digest}")
    assert (response.status_code, response.json()["code"]) == (409, "upload_in_use")
    # What the job of another key reads is nobody's business.
    assert bob.delete(f"/v1/tensors/{digest}").status_code == 204
    ann.post(f"/v1/jobs/{job}/cancel")
    assert ann.delete(f"/v1/tensors/{digest}").status_code == 204
    assert ann.store.size(upload_name(digest)) is None


def test_the_address_is_checked(senders):
    response = senders("ann").delete("/v1/tensors/..%2Finstallation.json")
    assert response.status_code in (400, 404)
