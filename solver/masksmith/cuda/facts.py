"""Name and free memory of a GPU."""

from __future__ import annotations


def device_facts(device: str) -> tuple[str | None, int | None]:
    """Return a GPU's model name and its free memory in bytes; (None, None) if `device` is no available CUDA device."""
    if not device.startswith("cuda"):
        return None, None
    import torch

    if not torch.cuda.is_available():
        return None, None
    free, _ = torch.cuda.mem_get_info(device)
    return torch.cuda.get_device_name(device), int(free)
