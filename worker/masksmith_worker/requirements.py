"""What a worker of some role and device needs besides the extra `worker`, checked before it starts."""

from __future__ import annotations

from importlib.util import find_spec

from .settings import Settings


def check_requirements(settings: Settings) -> None:
    """Refuse to start a worker that could only fail.

    Raises:
        SystemExit: With the line that installs what is missing.
    """
    measures = settings.worker_role == "bench"
    if (measures or settings.worker_device != "cpu") and find_spec("torch") is None:
        what, extra = ("that measures kernels", "bench") if measures else (f"on {settings.worker_device}", "cuda")
        raise SystemExit(f"a worker {what} needs torch: pip install 'masksmith[{extra}]'")
