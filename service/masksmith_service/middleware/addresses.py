"""Addresses: which of them only this machine can reach."""

from __future__ import annotations

import ipaddress


def is_address(host: str) -> bool:
    """Whether a host is given by its number."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether who listens there hears nobody but this machine."""
    return ipaddress.ip_address(host).is_loopback if is_address(host) else host.lower() == "localhost"
