"""Checks at the start that the packages for a worker's role and device are installed."""

from __future__ import annotations

from importlib.util import find_spec

from .settings import Settings


def check_requirements(settings: Settings) -> None:
    """Check that torch is installed, if the worker needs it.

    Raises:
        SystemExit: If it is missing; the message has the command that installs it.
    """
    measures = settings.worker_role == "bench"
    if (measures or settings.worker_device != "cpu") and find_spec("torch") is None:
        what, extra = ("that measures kernels", "bench") if measures else (f"on {settings.worker_device}", "cuda")
        raise SystemExit(f"a worker {what} needs torch: pip install 'masksmith[{extra}]'")
