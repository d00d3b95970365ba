"""Uploads while the blob store cannot be written."""

import resource

import numpy as np
from blake3 import blake3
from starlette.testclient import TestClient

from masksmith_service.app import create_app


def test_a_disk_that_is_full_in_the_middle_leaves_nothing(settings, save, on_disk, good):
    data = save({"a": np.zeros(8 * 2**20, np.float32)})
    # The most that a file may have stands in for the disk's size.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with TestClient(create_app(settings.model_copy(update={"max_body_bytes": 10**9}))) as client:
        for method, path in [("PUT", f"/v1/tensors/{blake3(data).hexdigest()}"), ("POST", "/v1/masks?pattern=2:4")]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
            try:
                response = client.request(method, path, content=data)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
            assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
            assert on_disk.files() == []
        assert client.request(method, path, content=good).status_code == 202


def test_a_store_that_cannot_write_is_an_error_that_passes(client, good, on_disk, check_problem):
    # A file where the folder should be: the store fails as a full disk would, whoever runs the tests.
    (on_disk.path / "tensors").write_bytes(b"")
    response = client.post("/v1/masks", params={"pattern": "2:4"}, content=good)
    assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
    assert response.headers["retry-after"] == "5"
    (on_disk.path / "tensors").unlink()
    assert client.post("/v1/masks", params={"pattern": "2:4"}, content=good).status_code == 202


def test_a_store_that_is_gone_is_an_error_that_passes(client, good, on_disk):
    away = on_disk.path.with_name("away")
    on_disk.path.rename(away)
    response = client.post("/v1/masks", params={"pattern": "2:4"}, content=good)
    assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
    away.rename(on_disk.path)
    assert client.post("/v1/masks", params={"pattern": "2:4"}, content=good).status_code == 202
