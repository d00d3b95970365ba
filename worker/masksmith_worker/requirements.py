"""Checks at the start that the packages for a worker's role and device are installed."""

from __future__ import annotations

from importlib.util import find_spec

from .settings import Settings


def check_requirements(settings: Settings) -> None:
    """Check that torch is installed, if the worker needs it.

    Raises:
        SystemExit: If torch is missing; the message contains the command that installs it.
    """
    if find_spec("torch") is not None:
        return
    if settings.worker_role == "bench":
        raise SystemExit("a worker that measures kernels needs torch: pip install 'masksmith[bench]'")
    if settings.worker_device != "cpu":
        raise SystemExit(f"a worker on {settings.worker_device} needs torch: pip install 'masksmith[cuda]'")
