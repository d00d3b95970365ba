"""A disk that is full under everything, and a store that does not answer."""

import contextlib
import subprocess
import tempfile
import time
from pathlib import Path

import httpx2
import numpy as np
import pytest
import safetensors.numpy
from blake3 import blake3
from support.fleet import Fleet, bits, seconds_until, submit
from support.processes import SLOW_PATTERN, poll

import masksmith as ms

PATTERN = "transposable 8:16"
DISK_MIB = 64


class Disk:
    """A small disk that can be filled to the last byte."""

    def __init__(self, folder):
        self.folder, self._ballast = folder, folder / "ballast"

    def fill(self):
        with contextlib.suppress(OSError), self._ballast.open("ab", buffering=0) as file:
            while file.write(bytes(4096)):
                pass

    def free(self):
        self._ballast.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def disk():
    """A disk of its own, in memory; mounting one takes root."""
    folder = Path(tempfile.mkdtemp(prefix="ms-"))
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", folder]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    if not mounted:
        folder.rmdir()
        pytest.skip("mounting a small disk takes root")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", folder], check=True)
    folder.rmdir()


@pytest.fixture(scope="module")
def lone(disk):
    """Everything on that disk: store, broker's log, our logs."""
    given = {"MASKSMITH_MIN_FREE_BYTES": "0"}
    with Fleet(disk.folder, broker_folder=disk.folder / "broker", **given) as fleet:
        yield fleet


def layer(seed):
    return np.random.default_rng(seed).standard_normal((256, 512), dtype=np.float32)


def put(url, data):
    return httpx2.put(f"{url}/v1/tensors/{blake3(data).hexdigest()}", content=data, timeout=60)


def test_a_full_disk_refuses_and_recovers(lone, disk, table):
    data = safetensors.numpy.save({"w": layer(1)})
    with lone.client() as client:
        client.solve({"w": layer(2)}, PATTERN)
        disk.fill()
        refused = put(lone.url, data)
        assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
        assert int(refused.headers["retry-after"]) > 0
        assert not list(lone.store.rglob("*#*"))
        assert httpx2.get(f"{lone.url}/healthz").status_code == 200
        disk.free()
        seconds = seconds_until(lambda: put(lone.url, data).status_code in (200, 201))
        mask = client.solve({"w": layer(1)}, PATTERN)["w"]
    table["disk full, then freed"].add(seconds)
    assert (mask == ms.solve(ms.magnitude(layer(1)), PATTERN).mask).all()


@pytest.mark.slow
def test_a_job_waits_for_a_disk_that_is_full(lone, disk, table):
    weights = {f"layer{number}": layer(10 + number) for number in range(32)}
    with lone.client() as client:
        client.solve(weights, "2:4")
        lone.forget_results()
        job = submit(client, weights)
        lone.await_done(job.id, 1)
        disk.fill()
        poll(
            lambda: (
                "waits for the store" in lone.workers[0].log.read_text() or "MISCONF" in lone.workers[0].log.read_text()
            )
        )
        time.sleep(3)
        assert all(worker.runs for worker in lone.workers)
        assert httpx2.get(f"{lone.url}/healthz").status_code == 200
        before = lone.done(job.id)
        disk.free()
        seconds = seconds_until(lambda: lone.done(job.id) > before)
        found = bits(job)
    expected = ms.solve_many({name: ms.magnitude(weight) for name, weight in weights.items()}, SLOW_PATTERN)
    lost = int(found != {name: solution.mask.tobytes() for name, solution in expected.items()})
    table["disk full in the middle of a job"].add(seconds, lost)
    assert not lost


@pytest.mark.slow
def test_a_job_waits_for_a_store_that_is_away(fleet, weights, undisturbed, table):
    data = safetensors.numpy.save({"w": layer(3)})
    away = fleet.store.with_name("away")
    with fleet.client() as client:
        job = submit(client, weights)
        fleet.await_done(job.id, 5)
        fleet.store.rename(away)
        try:
            refused = put(fleet.url, data)
            time.sleep(3)
            before = fleet.done(job.id)
        finally:
            away.rename(fleet.store)
        assert before < job.document.progress.total
        seconds = seconds_until(lambda: fleet.done(job.id) > before)
        found = bits(job)
    table["store away in the middle of a job"].add(seconds, lost=int(found != undisturbed))
    assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
    assert found == undisturbed
    assert put(fleet.url, data).status_code == 201
