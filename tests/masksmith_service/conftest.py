"""The service in this process, without workers: a real Valkey, a store of its own, lifespan on."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from blake3 import blake3
from starlette.testclient import TestClient

from masksmith_service.app import create_app
from masksmith_service.settings import Settings

WEIGHT = np.arange(64, dtype=np.float32).reshape(8, 8)
PROBLEM = "application/problem+json"


@pytest.fixture
def settings(valkey, records, tmp_path):
    return Settings(
        redis_url=valkey.url,
        store_url=str(tmp_path / "store"),
        max_body_bytes=100_000,
        max_document_bytes=10_000,
        max_tensors=5,
    )


@pytest.fixture
def app(settings):
    return create_app(settings)


@pytest.fixture
def client(app):
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


class Store:
    """The service's store as it lies on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self):
        """Every file, also lists of digests whose blob a running service has just deleted."""
        return sorted(path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if path.is_file())

    def files(self):
        """Every file but the lists of digests, each of which belongs to one of these."""
        names = self.names()
        lists = [name for name in names if name.startswith("pieces/")]
        assert {name.removeprefix("pieces/") for name in lists} <= set(names), names
        return [name for name in names if name not in lists and name != "installation.json"]

    def check_whole(self):
        """Every file but a result is an upload under the digest of its bytes: nothing is half-written or in between."""
        for name in self.files():
            folder, _, digest = name.partition("/")
            if folder in ("masks", "damaged"):
                continue
            assert folder == "tensors", name
            assert digest[3:] == blake3((self.path / name).read_bytes()).hexdigest(), name


@pytest.fixture
def on_disk(settings):
    return Store(Path(settings.store_url))


@pytest.fixture
def save():
    return safetensors.numpy.save


@pytest.fixture
def good(save):
    return save({"layer.weight": WEIGHT, "layer.bias": WEIGHT[0]})


@pytest.fixture
def put(client):
    """Upload a file; gives its digest."""

    def put(data):
        digest = blake3(data).hexdigest()
        response = client.put(f"/v1/tensors/{digest}", content=data)
        assert response.status_code in (200, 201), response.text
        return digest

    return put


@pytest.fixture
def submit(client, good):
    """Start a job that nobody will work on; gives it."""

    def submit(**headers):
        response = client.post("/v1/masks", params={"pattern": "2:4"}, content=good, headers=headers)
        assert response.status_code == 202, response.text
        return response.json()

    return submit


@pytest.fixture
def check_problem(client, good, on_disk):
    """Check that a response is the problem document expected, and that the service is none the worse for it."""

    def check(response, status, code, *words):
        assert response.headers["content-type"] == PROBLEM, response.text
        problem = response.json()
        assert (response.status_code, problem["status"], problem["code"]) == (status, status, code), problem
        assert problem["title"]
        assert problem["instance"] == response.request.url.path
        for word in words:
            assert word in problem["detail"]
        assert "Traceback" not in response.text
        on_disk.check_whole()
        after = client.post("/v1/masks", params={"pattern": "2:4"}, content=good)
        assert after.status_code == 202, after.text
        return problem

    return check
