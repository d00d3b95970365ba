"""Description of the machine of a benchmark (processor, GPU, versions of libraries), and the identity of a device."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from masksmith._cores import available_cores

PACKAGES = ("numpy", "numba", "scipy", "triton")
"""Packages other than torch; the description has the versions of those that are installed."""


def describe(device: str, threads: int) -> dict[str, Any]:
    """Return a description of machine, device and versions of libraries, for the head of a report.

    Args:
        device: `cpu`, or a CUDA device.
        threads: Number of threads of CPU kernels; for a CUDA device, it is not in the description.
    """
    import torch

    facts: dict[str, Any] = {
        "device": device,
        "processor": _processor_name(),
        "cores": available_cores(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "tf32": _allows_tf32(),
    }
    versions = {name: _version(name) for name in PACKAGES}
    facts |= {name: text for name, text in versions.items() if text is not None}
    if device.partition(":")[0] == "cuda":
        return facts | _gpu(device)
    return facts | {"threads": threads, "capability": torch.backends.cpu.get_cpu_capability()}


def _allows_tf32() -> bool:
    """Whether float32 products on CUDA devices may be computed in TF32.

    Torch has two interfaces for this. Reading the older one, `allow_tf32`, raises an error after the newer one was set.
    """
    import torch

    matmul: Any = torch.backends.cuda.matmul
    return bool(matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32)


def device_identity(device: str) -> str:
    """Return an identifier of a device; all processes that can use the device get the same one, also in containers.

    Without `/proc`, the host's name identifies the CPU; a container may then get another identifier than the host.
    """
    if device.partition(":")[0] == "cuda":
        import torch

        return f"gpu-{torch.cuda.get_device_properties(device).uuid}"
    try:
        return "cpu-" + Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "cpu-" + platform.node()


def _processor_name() -> str:
    """Return the processor's model name; if it is not known, a shorter name or the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _gpu(device: str) -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(device)
    facts = {
        "gpu": properties.name,
        "capability": f"sm_{properties.major}{properties.minor}",
        "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
    }
    if torch.backends.cusparselt.is_available():
        facts["cusparselt"] = torch.backends.cusparselt.version()
    return facts


def _version(package: str) -> str | None:
    """Return the version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
