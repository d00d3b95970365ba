"""The processes that `masksmith up` runs, without its Redis server: workers, benchmark workers and the service."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from . import components, settings
from .data_directory import DataDirectory
from .processes import ProcessSpec

SERVICE_GRACE_S, WORKER_GRACE_S = 8.0, 13.0
"""Grace periods (`ProcessSpec.grace_s`) of the service and of each worker.

Service, workers and Redis server are stopped one after the other. Their three periods add up to less than 30 s, the
longest time that a stop by Ctrl-C may take.
"""


@dataclass(frozen=True, slots=True)
class InstallationPlan:
    """The processes of an installation, without its Redis server.

    Attributes:
        host: Address of the service.
        port: Port of the service.
        data: Data directory.
        slots: Shards that the CPU worker solves at the same time.
        gpu_count: Number of GPU workers.
        has_bench: Whether there is also a benchmark worker for the device of each worker.
        variables: Environment variables of all processes; None leaves a variable unchanged.
    """

    host: str
    port: int
    data: DataDirectory
    slots: int
    gpu_count: int
    has_bench: bool = True
    variables: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """URL of the service; with the loopback address if the service listens on all addresses."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        is_bare_ipv6 = ":" in host and not host.startswith("[")
        return f"http://[{host}]:{self.port}" if is_bare_ipv6 else f"http://{host}:{self.port}"

    @property
    def workers(self) -> dict[str, tuple[str, int]]:
        """Device and slots of every worker but the benchmark workers, by name."""
        gpu_workers = {f"worker-cuda{number}": (f"cuda:{number}", 1) for number in range(self.gpu_count)}
        return {"worker-cpu": ("cpu", self.slots), **gpu_workers}

    @property
    def bench_workers(self) -> dict[str, str]:
        """Device of every benchmark worker, by name."""
        devices = {name.removeprefix("worker-"): device for name, (device, _) in self.workers.items()}
        return {f"bench-{name}": device for name, device in devices.items() if self.has_bench}

    def process_specs(self, redis_url: str, auth: str = "required") -> list[ProcessSpec]:
        """Specify the processes, in the order in which they are started; `auth` is the setting `MASKSMITH_AUTH`."""
        workers = [
            self._worker_spec(name, redis_url, device, MASKSMITH_WORKER_SLOTS=str(slots))
            for name, (device, slots) in self.workers.items()
        ]
        bench_workers = [
            self._worker_spec(name, redis_url, device, MASKSMITH_WORKER_ROLE="bench")
            for name, device in self.bench_workers.items()
        ]
        service = self._process_spec(
            "service",
            "service",
            redis_url,
            MASKSMITH_HOST=self.host,
            MASKSMITH_PORT=str(self.port),
            MASKSMITH_AUTH=auth,
        )
        return [*workers, *bench_workers, service]

    def _worker_spec(self, name: str, redis_url: str, device: str, **variables: str) -> ProcessSpec:
        unique_name = f"{name.removeprefix('worker-')}-{socket.gethostname()}-{os.getpid()}"
        identity = {"MASKSMITH_WORKER_NAME": unique_name, "MASKSMITH_WORKER_DEVICE": device}
        return self._process_spec("worker", name, redis_url, **identity, **variables)

    def _process_spec(self, component: str, name: str, redis_url: str, **variables: str) -> ProcessSpec:
        environment = {
            **self.variables,
            "MASKSMITH_REDIS_URL": redis_url,
            "MASKSMITH_STORE_URL": settings.store_location(None, self.data.path),
            **variables,
        }
        grace_s = SERVICE_GRACE_S if component == "service" else WORKER_GRACE_S
        return ProcessSpec(
            name,
            components.command(component),
            settings.child_environment(environment),
            self.data.prepare_log(name),
            grace_s,
        )
