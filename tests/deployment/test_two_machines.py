"""Two machines: a worker in a network namespace of its own, which reaches nothing but one broker and one S3 bucket."""

import os
import shutil
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from support.processes import environment, free_port, poll, run, tails

import masksmith as ms
from masksmith_client import Client
from masksmith_service.local.valkey import find_binary

HERE, THERE = "10.213.7.1", "10.213.7.2"
PATTERN = "transposable 8:16"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="making a network namespace needs root and iproute2"
)


def ip(*arguments, check=True):
    subprocess.run(["ip", *arguments], check=check, capture_output=True)


@pytest.fixture(scope="module")
def elsewhere():
    """A machine with one cable to this one; gives what to put before a command that is to run there."""
    name = f"masksmith{os.getpid()}"
    near, far = f"ms{os.getpid()}a"[:15], f"ms{os.getpid()}b"[:15]
    ip("netns", "add", name)
    try:
        ip("link", "add", near, "type", "veth", "peer", "name", far)
        ip("link", "set", far, "netns", name)
        ip("addr", "add", f"{HERE}/24", "dev", near)
        ip("link", "set", near, "up")
        ip("-n", name, "addr", "add", f"{THERE}/24", "dev", far)
        ip("-n", name, "link", "set", far, "up")
        yield ["ip", "netns", "exec", name]
    finally:
        ip("netns", "del", name, check=False)
        ip("link", "del", near, check=False)


class Cluster:
    """Broker, bucket and service here, a worker there."""

    def __init__(self, folder, elsewhere):
        self.folder, self.elsewhere, self.logs, self.processes = folder, elsewhere, [], []
        self.redis_port, self.s3_port, self.port = free_port(), free_port(), free_port()
        self.environment = environment(
            MASKSMITH_REDIS_URL=f"redis://{HERE}:{self.redis_port}/0",
            MASKSMITH_STORE_URL="s3://masks/team",
            MASKSMITH_PORT=str(self.port),
            MASKSMITH_WORKER_SLOTS="1",
            AWS_ENDPOINT_URL=f"http://{HERE}:{self.s3_port}",
            AWS_ACCESS_KEY_ID="somebody",
            AWS_SECRET_ACCESS_KEY="secret",
            AWS_DEFAULT_REGION="us-east-1",
            AWS_ALLOW_HTTP="true",
        )

    def start(self):
        self.start_broker()
        self.start_bucket()
        self.logs.append(self.folder / "service.log")
        self.processes.append(run("masksmith_service", self.logs[-1], self.environment))
        self.start_command(
            [*self.elsewhere, sys.executable, "-P", "-m", "masksmith_worker"], "worker", self.environment
        )
        poll(self.is_ready)

    def start_broker(self):
        (self.folder / "redis").mkdir()
        place = [
            "--port",
            str(self.redis_port),
            "--bind",
            HERE,
            "--protected-mode",
            "no",
            "--dir",
            self.folder / "redis",
        ]
        self.start_command([find_binary(), *place, "--save", ""], "redis")

    def start_bucket(self):
        self.start_command([sys.executable, "-m", "moto.server", "-H", HERE, "-p", str(self.s3_port)], "s3")
        poll(self.made_bucket)

    def start_command(self, command, name, given=None):
        self.logs.append(self.folder / f"{name}.log")
        with self.logs[-1].open("wb") as log:
            self.processes.append(subprocess.Popen(command, env=given, stdout=log, stderr=subprocess.STDOUT))

    def made_bucket(self):
        request = urllib.request.Request(f"http://{HERE}:{self.s3_port}/masks", method="PUT")
        try:
            return urllib.request.urlopen(request, timeout=5).status == 200
        except OSError:
            return False

    def is_ready(self):
        dead = [process.args for process in self.processes if process.poll() is not None]
        assert not dead, (dead, tails(self.logs))
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5).status == 200
        except OSError:
            return False

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(240)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, elsewhere):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), elsewhere)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.mark.slow
def test_a_worker_on_another_machine_solves_from_a_bucket(cluster):
    rng = np.random.default_rng(5)
    weights = {f"layer{k}.weight": rng.standard_normal((96, 512), dtype=np.float32) for k in range(3)}
    with Client(f"http://127.0.0.1:{cluster.port}") as client:
        masks = client.solve(weights, PATTERN)
        assert [worker.queues for worker in client.info().workers] == [["masksmith.cpu"]]
    for name, weight in weights.items():
        np.testing.assert_array_equal(masks[name], ms.solve(ms.magnitude(weight), PATTERN).mask)
    assert not (cluster.folder / "store").exists()


@pytest.mark.slow
def test_that_machine_reaches_nothing_else(cluster):
    script = f"import socket; socket.create_connection(('127.0.0.1', {cluster.port}), 2)"
    refused = subprocess.run([*cluster.elsewhere, sys.executable, "-c", script], capture_output=True, check=False)
    assert refused.returncode != 0
