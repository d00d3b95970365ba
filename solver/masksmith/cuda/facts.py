"""What there is to tell of a device."""

from __future__ import annotations


def device_facts(device: str) -> tuple[str | None, int | None]:
    """Give a GPU's make and the bytes of memory that it has left; None for what is no GPU, or not there."""
    if not device.startswith("cuda"):
        return None, None
    import torch

    if not torch.cuda.is_available():
        return None, None
    free, _ = torch.cuda.mem_get_info(device)
    return torch.cuda.get_device_name(device), int(free)
