"""One flipped byte in every kind of blob, at every stage of a job: the right results, or an error with a name.

The service and the worker's runner are in this process, and share a store.
"""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from blake3 import blake3
from starlette.testclient import TestClient
from support.axes import is_long_run
from support.leases import run_shard

from masksmith_service.app import create_app
from masksmith_service.settings import Settings
from masksmith_state.blobs.names import piece_list_name, upload_name
from masksmith_state.blobs.store import BlobStore
from masksmith_wire.errors import Code
from masksmith_wire.masks import MaskInfo, file_header, pack
from masksmith_worker.runner import ShardRunner

pytestmark = pytest.mark.torch

RANDOM = np.random.default_rng(20)
WEIGHT = RANDOM.standard_normal((16, 16)).astype(np.float32)
INPUTS = RANDOM.standard_normal((64, 16))
OLD_MASK = np.tile([True, True, False, False], (16, 4))
PREVIOUS = file_header({"w": MaskInfo(shape=[16, 16], pattern="2:4")}) + pack(OLD_MASK).tobytes()
UPLOADS = {
    "weight": safetensors.numpy.save({"w": WEIGHT}),
    "calibration": safetensors.numpy.save({"w/gram": INPUTS.T @ INPUTS}),
    "previous": PREVIOUS,
}
DIGESTS = {name: blake3(data).hexdigest() for name, data in UPLOADS.items()}
STORED = {"result": "masks/*/*", "report": "masks/*/*.json", "updated": "weights/*/*", "statistic": "statistics/*/*"}
STAGES = ("uploaded", "queued", "done", "again")
KINDS = {stage: [*UPLOADS] if stage in STAGES[:2] else [*UPLOADS, *STORED] for stage in STAGES}
NAMED = {
    Code.UPLOAD_DAMAGED, Code.UPLOAD_NOT_FOUND, Code.RESULT_DAMAGED, Code.RESULT_NOT_FOUND,
}  # fmt: skip


class Refused(Exception):
    """An error with a name, instead of results."""


class Site:
    """An installation of a service and a runner, and one job."""

    def __init__(self, client, records, folder):
        self.client, self.records, self.folder = client, records, folder

    def upload(self):
        for name, data in UPLOADS.items():
            assert self.client.put(f"/v1/tensors/{DIGESTS[name]}", content=data).status_code in (200, 201)

    def submit(self):
        document = {
            "pattern": "transposable 4:8", "scores": "sparsegpt", "update": "reconstruct",
            "calibration": DIGESTS["calibration"], "previous": DIGESTS["previous"],
            "tensors": [{
                "name": "w", "digest": DIGESTS["weight"], "key": "w",
                "statistic": {"kind": "gram", "digest": DIGESTS["calibration"], "key": "w/gram"},
                "gram": {"kind": "gram", "digest": DIGESTS["calibration"], "key": "w/gram"},
            }],
        }  # fmt: skip
        return self.answer(self.client.post("/v1/jobs", json=document)).json()["id"]

    def run(self, job):
        runner = ShardRunner(self.records, BlobStore(str(self.folder)))
        for index in self.records.shards(job):
            run_shard(runner, job, index)
        document = self.client.get(f"/v1/jobs/{job}").json()
        errors = [tensor["error"]["code"] for tensor in document["tensors"] if tensor["error"]]
        if errors:
            raise Refused(errors[0])
        assert document["state"] == "succeeded", document
        return document["tensors"][0]

    def download(self, job):
        urls = [f"/v1/jobs/{job}/{what}" for what in ("masks", "masks?format=bool", "weights")]
        return [safetensors.numpy.load(self.answer(self.client.get(url)).content)["w"].tobytes() for url in urls]

    @staticmethod
    def answer(response):
        if response.is_success:
            return response
        raise Refused(response.json()["code"])

    def path(self, kind):
        if kind in UPLOADS:
            return self.folder / upload_name(DIGESTS[kind])
        paths = [path for path in self.folder.glob(STORED[kind]) if kind == "report" or path.suffix != ".json"]
        assert paths, f"no {kind} is stored"
        return paths[0]

    def flip(self, kind, where, *, in_list):
        path = self.path(kind)
        if in_list:
            path = self.folder / piece_list_name(str(path.relative_to(self.folder)))
        data = bytearray(path.read_bytes())
        data[int(where * (len(data) - 1))] ^= 0x10
        path.write_bytes(data)

    def go(self, stage=None, damage=lambda: None):
        """Take a job from upload to download, with damage before one of the stages ends; gives what it has computed."""
        self.upload()
        for step in STAGES:
            if step == "uploaded":
                damage() if stage == step else None
                job = self.submit()
            elif step == "queued":
                damage() if stage == step else None
                report = self.run(job)
            elif step == "done":
                damage() if stage == step else None
                results = self.download(job)
            elif stage == step:
                damage()
                job = self.submit()
                report, results = self.run(job), self.download(job)
        return results, (report["objective"], report["status"], report["change"]["sad"])


@pytest.fixture
def site_of(valkey, records, tmp_path):
    """Make an installation with an empty broker and an empty store."""
    clients = []

    def close():
        while clients:
            clients.pop().__exit__(None, None, None)

    def site_of(name):
        close()
        records.redis.flushall()
        folder = tmp_path / name
        client = TestClient(create_app(Settings(redis_url=valkey.url, store_url=str(folder))))
        clients.append(client)
        return Site(client.__enter__(), records, Path(folder))

    yield site_of
    close()


def outcome(site, stage, damage):
    """What the job has computed, or the code of the error."""
    try:
        return site.go(stage, damage)
    except Refused as error:
        return str(error)


@pytest.mark.parametrize("stage", [*STAGES[:-1], pytest.param(STAGES[-1], marks=pytest.mark.slow)])
def test_a_flipped_byte_gives_the_right_results_or_an_error_with_a_name(site_of, stage):
    right = site_of("right").go()
    outcomes = {}
    for kind in KINDS[stage]:
        for where in (0.0, 0.6, 1.0) if is_long_run() else (0.0, 1.0):
            for in_list in (False, True):
                if in_list and kind in ("report", "statistic"):
                    continue  # They carry a digest of their own, and have no list.
                site = site_of(f"{kind}-{where}-{in_list}")
                found = outcome(site, stage, lambda: site.flip(kind, where, in_list=in_list))  # noqa: B023
                assert found == right or found in NAMED, (kind, where, in_list)
                outcomes.setdefault(kind, set()).add("right" if found == right else found)
    if stage == "again":
        # What can be computed again is.
        assert {kind: outcomes[kind] for kind in STORED} == {kind: {"right"} for kind in STORED}
    elif stage == "done":
        assert outcomes["result"] >= {"result_damaged"} <= outcomes["updated"]
    else:
        assert all(outcomes[kind] - {"right"} for kind in UPLOADS), outcomes
