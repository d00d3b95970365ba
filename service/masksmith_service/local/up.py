"""The command `masksmith up`, which runs a complete installation."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from masksmith._cores import available_cores

from . import components, settings, valkey
from .data_directory import DataDirectory
from .errors import UsageError
from .options import InsecureOption, LogFormatOption, expand_optional_home, note, shared_settings
from .plan import InstallationPlan
from .roots import root_urls, roots_variable
from .supervisor import Supervisor


def up(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Directory of all data; default ~/.local/share/masksmith.",
            callback=expand_optional_home,
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, metavar="N", help="CPU cores to solve on; default all.")
    ] = None,
    gpus: Annotated[
        int, typer.Option("--gpus", min=0, metavar="N", help="GPU workers, in addition to the CPU worker.")
    ] = 0,
    root: Annotated[
        list[str] | None,
        typer.Option(
            "--root",
            metavar="DIR",
            help="Directory or s3:// prefix that the jobs of all keys may read and write; repeatable.",
        ),
    ] = None,
    bench: Annotated[
        bool | None,
        typer.Option(
            "--bench/--no-bench",
            help="Run a benchmark worker, too, on the device of each worker; default if torch is installed.",
        ),
    ] = None,
    insecure: InsecureOption = False,
    log_format: LogFormatOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON on stdout once ready.")] = False,
) -> None:
    """Run service, workers and their Redis-protocol server until Ctrl-C; queued jobs are kept."""
    variables = shared_settings(insecure, log_format) | {"MASKSMITH_ROOTS": roots_variable(root or [])}
    for component in ("service", "worker"):
        components.check_installed(component)
    _check_torch(gpus, bench)
    if gpus > settings.visible_gpu_count():
        raise UsageError(f"--gpus {gpus}: only {settings.visible_gpu_count()} NVIDIA GPU(s) are visible here")
    directory = DataDirectory(data or settings.data_home())
    try:
        has_bench = components.has_torch() if bench is None else bench
        plan = InstallationPlan(
            host, _check_port(host, port), directory, workers or available_cores(), gpus, has_bench, variables
        )
        directory.write_holder(f"{plan.url}, process {os.getpid()}")
        _run(plan, insecure=insecure or settings.is_insecure(), as_json=as_json)
    finally:
        directory.release()


def _check_torch(gpus: int, bench: bool | None) -> None:
    """Raise `UsageError` if the options need torch, and it is not installed."""
    if components.has_torch():
        return
    if gpus:
        raise UsageError(f"--gpus {gpus} needs torch: pip install 'masksmith[cuda]'")
    if bench:
        raise UsageError("--bench needs torch: pip install 'masksmith[bench]'")


def _run(plan: InstallationPlan, *, insecure: bool, as_json: bool) -> None:
    # Imported here, so that the help of the command does not import clients of Redis and HTTP.
    from .start import start_processes

    supervisor = Supervisor(note)
    with supervisor.handling_signals(), valkey.short_socket_path(plan.data.path) as socket_path:
        try:
            start_processes(plan, supervisor, socket_path, insecure=insecure)
            if not supervisor.stopping:
                _show_ready(plan, as_json=as_json)
            while not supervisor.stopping:
                supervisor.restart_failed()
                supervisor.rotate_logs()
                supervisor.wait()
            note("")  # ends the line on which the terminal shows ^C
            note("stopping; queued jobs go on with the next 'masksmith up' ...")
        finally:
            supervisor.stop()
            note("stopped")


def _show_ready(plan: InstallationPlan, *, as_json: bool) -> None:
    if as_json:
        ready = {"url": plan.url, "data": str(plan.data.path), "workers": list(plan.workers), "pid": os.getpid()}
        typer.echo(json.dumps(ready))
        return
    devices = ", ".join(f"{device} ({slots} slot{'s' * (slots > 1)})" for device, slots in plan.workers.values())
    note(f"ready at {plan.url}")
    note(f"  page     {plan.url}/")
    note(f"  workers  {devices}")
    note(f"  data     {plan.data.path}")
    if not components.has_torch():
        note("  kernels  not measured, since torch is missing: pip install 'masksmith[bench]'")
    for url in root_urls(plan.variables.get("MASKSMITH_ROOTS") or settings.roots_json()):
        note(f"  root     {url}")
    if settings.store_url():
        note(f"  store    {settings.store_url()}")
    note(f"  logs     {plan.data.logs}")
    if plan.url != "http://127.0.0.1:8000":
        note(f"  clients  export MASKSMITH_URL={plan.url}")
    note("Ctrl-C stops everything; nothing is lost.")


def _check_port(host: str, port: int) -> int:
    """Check that host and port can be listened on, before any process starts; return the port, or for 0 a free one."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except UnicodeError:  # Raised for a part between dots that is empty or too long.
        raise UsageError(f"--host {host!r} is neither an IP address nor the name of a host") from None
    except OSError as error:
        hint = "; --port 0 takes a free one" if port else ""
        raise UsageError(f"cannot listen on {host} port {port}: {error.strerror}{hint}") from None
