"""Where a benchmark runs: processor, GPU, versions of what computes."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "numba", "scipy", "triton")


def describe(device: str, threads: int) -> dict[str, Any]:
    """Give the machine, the device and the versions, for the head of a report."""
    import torch

    found: dict[str, Any] = {
        "device": device,
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "tf32": torch.backends.cuda.matmul.allow_tf32,
    }
    found |= {name: known for name in PACKAGES if (known := _version(name)) is not None}
    if device.partition(":")[0] == "cuda":
        return found | _gpu(device)
    return found | {"threads": threads, "capability": torch.backends.cpu.get_cpu_capability()}


def processor() -> str:
    """Give the processor's name as it gives it itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def device_identity(device: str) -> str:
    """Name a device so that every process that can use it gives the same name, in containers too."""
    if device.partition(":")[0] == "cuda":
        import torch

        return f"gpu-{torch.cuda.get_device_properties(device).uuid}"
    try:
        return "cpu-" + Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "cpu-" + platform.node()


def _gpu(device: str) -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(device)
    found = {
        "gpu": properties.name,
        "capability": f"sm_{properties.major}{properties.minor}",
        "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
    }
    if torch.backends.cusparselt.is_available():
        found["cusparselt"] = torch.backends.cusparselt.version()
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
