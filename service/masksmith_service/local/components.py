"""The commands `masksmith service` and `masksmith worker`.

Also what all local commands need to start these two: checks of what is installed, and command lines.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Annotated, Literal

import typer

from .errors import UsageError
from .options import InsecureOption, LogFormatOption, RedisOption, StoreOption, shared_settings
from .settings import child_environment

# Modules of the packages that each component needs; if one is missing, the component's extra is not installed.
MODULES = {
    "service": ("uvicorn", "fastapi", "celery", "redis", "obstore"),
    "worker": ("celery", "redis", "obstore", "ortools", "numba"),
}


def service(
    host: Annotated[str | None, typer.Option(help="MASKSMITH_HOST")] = None,
    port: Annotated[int | None, typer.Option(help="MASKSMITH_PORT", min=1, max=65535)] = None,
    processes: Annotated[
        int | None, typer.Option(help="Processes that share the port (MASKSMITH_PROCESSES)", min=1)
    ] = None,
    redis_url: RedisOption = None,
    store_url: StoreOption = None,
    insecure: InsecureOption = False,
    log_format: LogFormatOption = None,
) -> None:
    """Run the HTTP service alone, with a Redis server that you run."""
    _replace_process(
        "service",
        MASKSMITH_HOST=host,
        MASKSMITH_PORT=None if port is None else str(port),
        MASKSMITH_PROCESSES=None if processes is None else str(processes),
        MASKSMITH_REDIS_URL=redis_url,
        MASKSMITH_STORE_URL=store_url,
        **shared_settings(insecure, log_format),
    )


def worker(
    name: Annotated[str | None, typer.Option(help="MASKSMITH_WORKER_NAME")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda:N (MASKSMITH_WORKER_DEVICE)")] = None,
    slots: Annotated[
        int | None, typer.Option(help="Shards that it solves at once (MASKSMITH_WORKER_SLOTS)", min=1)
    ] = None,
    role: Annotated[
        Literal["search", "bench"] | None, typer.Option(help="Find masks or measure kernels (MASKSMITH_WORKER_ROLE)")
    ] = None,
    redis_url: RedisOption = None,
    store_url: StoreOption = None,
    log_format: LogFormatOption = None,
) -> None:
    """Run a worker alone, with a Redis server that you run."""
    _replace_process(
        "worker",
        MASKSMITH_WORKER_NAME=name,
        MASKSMITH_WORKER_DEVICE=device,
        MASKSMITH_WORKER_SLOTS=None if slots is None else str(slots),
        MASKSMITH_WORKER_ROLE=role,
        MASKSMITH_REDIS_URL=redis_url,
        MASKSMITH_STORE_URL=store_url,
        **shared_settings(False, log_format),
    )


def check_installed(component: str) -> None:
    """Check that the packages of the service or the worker are installed, without importing them.

    Raises:
        UsageError: If one is missing; the message has the command that installs it.
    """
    for module in (*MODULES[component], f"masksmith_{component}"):
        if importlib.util.find_spec(module) is None:
            raise UsageError(f"the {component} needs {module}: pip install 'masksmith[{component}]'")


def has_torch() -> bool:
    """Whether torch is installed; benchmark workers and workers on GPUs need it."""
    return importlib.util.find_spec("torch") is not None


def command(component: str) -> list[str]:
    """Return the command line that runs the service or the worker."""
    # -P: do not import a file such as celery.py from the current directory.
    return [sys.executable, "-P", "-m", f"masksmith_{component}"]


def _replace_process(component: str, **variables: str | None) -> None:
    """Replace this process by the service or the worker, with these environment variables, except those that are None.

    Raises:
        UsageError: As `check_installed` does.
    """
    check_installed(component)
    arguments = command(component)
    sys.stdout.flush()
    os.execve(arguments[0], arguments, child_environment(variables))
