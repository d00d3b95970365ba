"""Services and workers on one durable broker, each of which a test may kill, stop and start again."""

import contextlib
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import httpx2
import numpy as np
import redis

from masksmith_client import Client
from support.broker import Valkey
from support.processes import SLOW_PATTERN, environment, free_port, poll, pool_of, run

TENSORS = 40


class ManagedProcess:
    """One process of the installation, which a test may kill and start again."""

    def __init__(self, module, name, log, given):
        self.name, self.log = name, log
        self._module, self._given = module, given
        self.starts = 0
        self.process = None

    def start(self):
        self.starts += 1
        self.title = f"{self.name}-{self.starts}"
        self.process = run(self._module, self.log, self._given | {"MASKSMITH_WORKER_NAME": self.title})

    @property
    def runs(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        """Send SIGTERM, as a supervisor does; return whether the process ended by itself or by that signal."""
        self.process.terminate()
        # The web server ends its own work first, and then by the signal it was sent.
        return self.process.wait(240) in (0, -signal.SIGTERM)


class Fleet:
    """A whole installation.

    Args:
        folder: Directory of the store and of the logs.
        services: Number of services.
        workers: Number of workers, each with one slot.
        broker_folder: Directory of the broker's append-only file; default a temporary one.
        broker_given: Environment variables of the broker, in addition to those of this process.
        given: Settings of services and workers.
    """

    def __init__(self, folder, services=1, workers=1, broker_folder=None, broker_given=None, **given):
        self.folder, self.store = folder, folder / "store"
        self._http = httpx2.Client(timeout=5)
        # pytest's own folders are too deep for the path of a unix socket.
        self._broker_folder = broker_folder or Path(tempfile.mkdtemp(prefix="ms-"))
        self._broker_folder.mkdir(exist_ok=True)
        self.broker = Valkey(self._broker_folder, durable=True, given=broker_given)
        self.redis = redis.Redis.from_url(self.broker.url, decode_responses=True, socket_timeout=120)
        ours = {
            "MASKSMITH_REDIS_URL": self.broker.url,
            "MASKSMITH_STORE_URL": str(self.store),
            "MASKSMITH_WORKER_SLOTS": "1",
            "MASKSMITH_LEASE_S": "3",
        }
        self._given = environment(**ours | given)
        self.services = [self._service(number) for number in range(services)]
        self.workers = [
            ManagedProcess("masksmith_worker", f"worker{number}", folder / f"worker{number}.log", self._given)
            for number in range(workers)
        ]

    def _service(self, number):
        port = free_port()
        name = f"service{number}"
        seat = ManagedProcess(
            "masksmith_service", name, self.folder / f"{name}.log", self._given | {"MASKSMITH_PORT": str(port)}
        )
        seat.url = f"http://127.0.0.1:{port}"
        return seat

    def __enter__(self):
        self.broker.start()
        for seat in [*self.services, *self.workers]:
            seat.start()
        try:
            self.await_all()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for seat in [*self.services, *self.workers]:
            if seat.runs:
                seat.process.terminate()
        for seat in [*self.services, *self.workers]:
            if seat.process is not None:
                seat.process.wait(240)
        self._http.close()
        self.redis.close()
        self.broker.stop()
        shutil.rmtree(self._broker_folder)

    @property
    def url(self):
        return self.services[0].url

    @property
    def logs(self):
        return [seat.log for seat in [*self.services, *self.workers]]

    def await_all(self):
        """Wait until every service responds, and every worker is registered and has its pool."""
        poll(lambda: all(map(self.serves, self.services)) and all(map(self.works, self.workers)))

    def serves(self, service):
        assert service.runs, f"{service.name} ended"
        try:
            # Without workers it can only be alive.
            path = "readyz" if self.workers else "healthz"
            return self._http.get(f"{service.url}/{path}").status_code == 200
        except httpx2.TransportError:
            return False

    def works(self, worker):
        assert worker.runs, f"{worker.name} ended"
        return bool(self.redis.exists(f"masksmith:workers:{worker.title}")) and bool(pool_of(worker.process.pid))

    def kill_broker(self):
        """Kill the broker, and start it again with its append-only file."""
        self.broker.stop()
        self.broker.start()

    def kill_child(self, worker):
        """Kill the pool process of a worker."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pool_of(worker.process.pid)[0], signal.SIGKILL)

    def done(self, job):
        """Return the number of completed shards, as Redis has it."""
        return int(self.redis.hget(f"masksmith:job:{job}", "done"))

    def held(self, job):
        """Return the numbers of the shards that have a lease."""
        return {key.rpartition(":")[2] for key in self.redis.keys(f"masksmith:job:{job}:lease:*")}

    def pending(self, job):
        return self.redis.smembers(f"masksmith:job:{job}:pending")

    def await_done(self, job, count):
        poll(lambda: self.done(job) >= count)

    def forget_results(self):
        """Delete all masks in the store, so that the next job solves its shards again."""
        shutil.rmtree(self.store / "masks", ignore_errors=True)

    def client(self, service=0):
        return Client(self.services[service].url)


def submit(client, weights):
    """Submit a job that takes seconds: a slow solver and a slow pattern."""
    return client.jobs.submit(weights, SLOW_PATTERN, solver="min-cost-flow")


def forty(seed, rows=256, columns=512):
    """Return weights of forty layers, by name."""
    rng = np.random.default_rng(seed)
    return {f"layer{number:02}": rng.standard_normal((rows, columns), dtype=np.float32) for number in range(TENSORS)}


def bits(job):
    """Wait for the end of a job; return the bytes of its masks, by name."""
    job.wait(600)
    return {name: mask.tobytes() for name, mask in job.masks().items()}


def seconds_until(condition, timeout_s=300.0):
    begun = time.monotonic()
    poll(condition, timeout_s)
    return time.monotonic() - begun
