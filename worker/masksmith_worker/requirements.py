"""Checks at the start that the packages for a worker's role and device are installed."""

from __future__ import annotations

from importlib.util import find_spec

from masksmith_state.errors import InstallationError

from .settings import Settings


def check_requirements(settings: Settings) -> None:
    """Check that torch is installed, if the worker needs it.

    Raises:
        InstallationError: If torch is missing; the message contains the command that installs it.
    """
    if settings.worker_role == "bench":
        role, extra = "that measures kernels", "bench"
    elif settings.worker_device != "cpu":
        role, extra = f"on {settings.worker_device}", "cuda"
    else:
        return
    if find_spec("torch") is None:
        raise InstallationError(f"a worker {role} needs torch: pip install 'masksmith[{extra}]'")
