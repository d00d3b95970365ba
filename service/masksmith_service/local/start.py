"""The start of `masksmith up`: starts the processes of an installation, and waits until all of them are ready."""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path

import httpx2
from pydantic import BaseModel, ValidationError

from masksmith_service.middleware.addresses import is_loopback
from masksmith_wire.errors import Code, ProblemDocument

from . import settings, valkey
from .key_access import any_key_exists, check_key_exists
from .options import note
from .plan import InstallationPlan
from .redis_server import start_server
from .supervisor import Supervisor

SLOW_START_MESSAGE_S = 4.0
"""Seconds of a start after which messages say what it is waiting for."""
BETWEEN_MESSAGES_S = 2.0
"""Minimum seconds between two messages of a start."""


class _Readiness(BaseModel):
    """The response of `/readyz` when the service is ready, as far as it is used here."""

    workers: int


def start_processes(plan: InstallationPlan, supervisor: Supervisor, socket_path: Path, *, insecure: bool) -> None:
    """Start the processes; return when all are ready, or when the supervisor is stopping.

    Raises:
        UsageError: If no Redis-protocol server is installed; if other machines can reach the service's address, no key
            exists and `insecure` is not set; or if `MASKSMITH_AUTH` or `MASKSMITH_REDIS_URL` is invalid.
        FailedError: If the Redis server does not respond or refuses a command, or a process fails before all are ready.
    """
    auth = settings.auth()  # Checked before any process is started.
    note(f"starting masksmith {version('masksmith')} ...")
    redis_url = settings.redis_url()
    if redis_url is None:
        redis_url = valkey.url(socket_path)
        start_server(supervisor, plan.data, socket_path)
    if supervisor.stopping:
        return
    if not insecure:
        check_key_exists(plan.host, redis_url)
    for process in plan.process_specs(redis_url, _auth_setting(plan, redis_url, auth)):
        supervisor.start(process)
    _wait_until_ready(plan, supervisor)


def _auth_setting(plan: InstallationPlan, redis_url: str, auth: str | None) -> str:
    """Return the value of `MASKSMITH_AUTH` for the processes.

    It is `none` if the service listens on a loopback address, no key was ever created, and `auth`, the setting of this
    process, is not `required`; else it is `required`. If a key exists, the data directory records that keys are
    required, so that this holds even after the Redis server has lost all keys.
    """
    if not plan.data.requires_keys and any_key_exists(redis_url):
        plan.data.record_key_requirement()
    is_open = is_loopback(plan.host) and not plan.data.requires_keys and auth != "required"
    return "none" if is_open else "required"


def _wait_until_ready(plan: InstallationPlan, supervisor: Supervisor) -> None:
    last_message, next_message_at = "", time.monotonic() + SLOW_START_MESSAGE_S
    with httpx2.Client(base_url=plan.url, timeout=2.0, trust_env=False) as client:
        while not supervisor.stopping:
            supervisor.check()
            progress = _progress(client, len(plan.workers))
            if progress is None:
                return
            if progress != last_message and time.monotonic() > next_message_at:
                note(progress)
                last_message, next_message_at = progress, time.monotonic() + BETWEEN_MESSAGES_S
            supervisor.wait()


def _progress(client: httpx2.Client, worker_count: int) -> str | None:
    """Return what the start is waiting for, or None if the service and `worker_count` workers are ready."""
    try:
        response = client.get("/readyz")
    except httpx2.RequestError:
        return f"workers 0 of {worker_count}: the service is starting"
    try:
        if response.is_success:
            alive = _Readiness.model_validate_json(response.content).workers
            return None if alive >= worker_count else f"workers {alive} of {worker_count}: others are starting"
        problem = ProblemDocument.model_validate_json(response.content)
    except ValidationError:  # Another program, or a proxy, answers at this address.
        status = f"{response.status_code} {response.reason_phrase}"
        return f"{response.url} answered {status}, which is no response of masksmith"
    if problem.code != Code.NO_WORKER:
        return problem.detail
    # Until a worker has reported a step of its own start, `/readyz` advises to start one; `up` has already done that.
    step = "starting" if "start one" in problem.detail else problem.detail
    return f"workers 0 of {worker_count}: {step}"
