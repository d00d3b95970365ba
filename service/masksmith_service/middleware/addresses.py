"""Classifies host addresses."""

from __future__ import annotations

import ipaddress


def is_address(host: str) -> bool:
    """Whether a host is an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether a host is reachable only from this machine."""
    return ipaddress.ip_address(host).is_loopback if is_address(host) else host.lower() == "localhost"
