"""Why torch cannot use a device, and the name and free memory of a CUDA device."""

from __future__ import annotations


def reason_not_cuda_device(device: str) -> str | None:
    """Return why torch cannot use `device` as a CUDA device, or None; whether numba-cuda can use it is not checked."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count and device in ("cuda", *(f"cuda:{number}" for number in range(count))):
        return None
    return f"it is none of the {count} CUDA device(s) that torch finds"


def reason_not_torch_device(device: str) -> str | None:
    """Return why `device` is not the name of a device of torch, or is a CUDA device that torch cannot use, or None.

    Whether this machine has a device of another kind, such as `mps`, is not checked.
    """
    import torch

    try:
        device_type = torch.device(device).type
    except RuntimeError as error:
        return str(error).partition("\n")[0]
    return reason_not_cuda_device(device) if device_type == "cuda" else None


def device_facts(device: str) -> tuple[str | None, int | None]:
    """Return a GPU's model name and its free memory in bytes; (None, None) if `device` is no available CUDA device."""
    # For a CPU torch is not imported.
    if not device.startswith("cuda") or reason_not_cuda_device(device) is not None:
        return None, None
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    return torch.cuda.get_device_name(device), int(free)
