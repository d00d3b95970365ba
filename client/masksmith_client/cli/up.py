"""`masksmith up`: a whole installation with one command, and nothing to install before."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx2
import typer

from masksmith_client._errors import InputError
from masksmith_client._version import __version__
from masksmith_client.transport.calls import refusal

from . import keys, parts, settings, valkey
from .console import emit_line, note
from .data import DataDirectory
from .processes import Part
from .supervision import PartFailedError, Supervisor

# Together with the server's, below 30 s, the longest that Ctrl-C may take.
SERVICE_GRACE_S, WORKER_GRACE_S = 8.0, 13.0
SLOW_START_S = 4.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to bring up.

    Attributes:
        slots: Shards that the CPU worker solves at once.
        gpus: Number of GPU workers beside it.
        bench: Whether a worker that measures stands beside each of them.
    """

    host: str
    port: int
    data: DataDirectory
    slots: int
    gpus: int
    bench: bool = True

    @property
    def url(self) -> str:
        """Where the service will be; a wildcard address is reached on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{self.port}"

    @property
    def workers(self) -> dict[str, tuple[str, int]]:
        """Device and slots of every worker, by name."""
        gpus = {f"worker-cuda{number}": (f"cuda:{number}", 1) for number in range(self.gpus)}
        return {"worker-cpu": ("cpu", self.slots), **gpus}

    @property
    def benches(self) -> dict[str, str]:
        """Device of every worker that measures, by name."""
        devices = {name.removeprefix("worker-"): device for name, (device, _) in self.workers.items()}
        return {f"bench-{name}": device for name, device in devices.items() if self.bench}


def up(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
    data: Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Where everything is kept.")] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, metavar="N", help="CPU cores to solve on; all unless given.")
    ] = None,
    gpus: Annotated[int, typer.Option("--gpus", min=0, metavar="N", help="GPU workers beside the CPU's.")] = 0,
    bench: Annotated[
        bool, typer.Option("--bench/--no-bench", help="A worker that measures kernels, beside each of the others.")
    ] = True,
    insecure: parts.InsecureOption = False,
    log_format: parts.LogFormatOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON on stdout once ready.")] = False,
) -> None:
    """Run service, workers and their Redis-protocol server until Ctrl-C; the queue survives it."""
    settings.be_told(
        MASKSMITH_INSECURE="true" if insecure else None, MASKSMITH_LOG_FORMAT=parts.check_log_format(log_format)
    )
    for part in ("service", "worker"):
        parts.check_installed(part)
    if gpus > settings.visible_gpus():
        raise InputError(f"--gpus {gpus}: only {settings.visible_gpus()} NVIDIA GPU(s) are visible here")
    directory = DataDirectory(data or settings.data_home())
    try:
        plan = Plan(host, _port(host, port), directory, workers or _cores(), gpus, bench)
        directory.announce(f"{plan.url}, process {os.getpid()}")
        code = _run(plan, as_json=as_json)
    finally:
        directory.release()
    raise typer.Exit(code)


def _run(plan: Plan, *, as_json: bool) -> int:
    supervisor = Supervisor(note)
    place = valkey.SocketPlace(plan.data.path)
    with supervisor.signals():
        try:
            _start(plan, supervisor, place)
            if not supervisor.stopping:
                _greet(plan, as_json=as_json)
            while not supervisor.stopping:
                supervisor.tend()
                supervisor.rest()
            note("\nstopping; queued jobs go on with the next 'masksmith up' ...")
            return 0
        except PartFailedError as error:
            note(f"masksmith: {error}")
            return 1
        finally:
            supervisor.stop()
            place.remove()
            note("stopped")


def _start(plan: Plan, supervisor: Supervisor, place: valkey.SocketPlace) -> None:
    note(f"starting masksmith {__version__} ...")
    redis_url = settings.redis_url()
    if redis_url is None:
        redis_url = valkey.url(place.path)
        supervisor.start(valkey.part(plan.data, place.path))
        while not (supervisor.stopping or valkey.answers(place.path)):
            supervisor.check()
            time.sleep(0.02)
    if supervisor.stopping:
        return
    keys.refuse_strangers(plan.host, redis_url)
    shared = {
        "MASKSMITH_REDIS_URL": redis_url,
        "MASKSMITH_STORE_URL": settings.store_url() or str(plan.data.store),
    }
    for name in plan.workers:
        supervisor.start(_worker(plan, name, shared))
    for name, device in plan.benches.items():
        supervisor.start(_bencher(plan, name, device, shared))
    supervisor.start(_service(plan, shared))
    _await_readiness(plan, supervisor)


def _await_readiness(plan: Plan, supervisor: Supervisor) -> None:
    began, told = time.monotonic(), False
    with httpx2.Client(base_url=plan.url, timeout=2.0, trust_env=False) as client:
        while not supervisor.stopping:
            supervisor.check()
            trouble = _trouble(client)
            if trouble is None:
                return
            if not told and time.monotonic() - began > SLOW_START_S:
                note(
                    f"still starting: {trouble}\n"
                    f"the first start on a machine compiles the solver's kernels, once, for about half a minute "
                    f"(logs: {plan.data.logs})"
                )
                told = True
            supervisor.rest()


def _trouble(client: httpx2.Client) -> str | None:
    try:
        response = client.get("/readyz")
    except httpx2.RequestError:
        return "the service does not answer yet"
    return None if response.is_success else refusal(response).problem.detail


def _greet(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        emit_line({"url": plan.url, "data": str(plan.data.path), "workers": list(plan.workers), "pid": os.getpid()})
        return
    devices = ", ".join(f"{device} ({slots} slot{'s' * (slots > 1)})" for device, slots in plan.workers.values())
    note(f"ready at {plan.url}")
    note(f"  page     {plan.url}/")
    note(f"  workers  {devices}")
    note(f"  data     {plan.data.path}")
    if settings.store_url():
        note(f"  store    {settings.store_url()}")
    note(f"  logs     {plan.data.logs}")
    if plan.url != "http://127.0.0.1:8000":
        note(f"  clients  export MASKSMITH_URL={plan.url}")
    note("Ctrl-C stops everything; nothing is lost.")


def _worker(plan: Plan, name: str, shared: dict[str, str]) -> Part:
    device, slots = plan.workers[name]
    given = shared | {
        "MASKSMITH_WORKER_NAME": f"{name.removeprefix('worker-')}-{socket.gethostname()}-{os.getpid()}",
        "MASKSMITH_WORKER_DEVICE": device,
        "MASKSMITH_WORKER_SLOTS": str(slots),
    }
    environment = settings.child_environment(given)
    return Part(name, parts.command("worker"), environment, plan.data.log(name), WORKER_GRACE_S)


def _bencher(plan: Plan, name: str, device: str, shared: dict[str, str]) -> Part:
    given = shared | {
        "MASKSMITH_WORKER_NAME": f"{name}-{socket.gethostname()}-{os.getpid()}",
        "MASKSMITH_WORKER_DEVICE": device,
        "MASKSMITH_WORKER_ROLE": "bench",
    }
    environment = settings.child_environment(given)
    return Part(name, parts.command("worker"), environment, plan.data.log(name), WORKER_GRACE_S)


def _service(plan: Plan, shared: dict[str, str]) -> Part:
    given = shared | {"MASKSMITH_HOST": plan.host, "MASKSMITH_PORT": str(plan.port)}
    environment = settings.child_environment(given)
    return Part("service", parts.command("service"), environment, plan.data.log("service"), SERVICE_GRACE_S)


def _port(host: str, port: int) -> int:
    """Find out early whether the address can be had; 0 becomes a free port."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        hint = "; --port 0 takes a free one" if port else ""
        raise InputError(f"cannot listen on {host} port {port}: {error.strerror}{hint}") from None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
