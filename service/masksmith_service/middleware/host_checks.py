"""Host and CSRF checks: pages of other sites reach the service through a browser, by a wrong name or by a write."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from masksmith_service.errors import RequestError
from masksmith_service.settings import Settings
from masksmith_wire.errors import Code

from .addresses import is_address

READS = frozenset({"GET", "HEAD", "OPTIONS"})


def check_host(headers: Mapping[str, str], settings: Settings) -> None:
    """Refuse names that are not ours (DNS rebinding: an attacker lets the name of a page resolve to our address).

    Addresses are always ours: no name was resolved.

    Raises:
        RequestError: 421, for other names.
    """
    host = headers.get("host")
    if host is None:
        return
    name = _hostname("//" + host)
    if name is not None and (_is_ours(name, settings) or "*" in settings.hosts):
        return
    detail = f"this service does not answer to {host[:100]!r}; if that is its name, add it to MASKSMITH_ALLOWED_HOSTS"
    raise RequestError(Code.HOST_NOT_ALLOWED, detail)


def check_origin(method: str, headers: Mapping[str, str], settings: Settings) -> None:
    """Refuse what pages of others send to change something here.

    Raises:
        RequestError: 403, for writes of other origins.
    """
    origin = headers.get("origin")
    if method in READS or (origin is None and headers.get("sec-fetch-site") != "cross-site"):
        return
    origin = origin or "null"
    if origin.partition("://")[2] == headers.get("host") or _hostname(origin) in settings.hosts:
        return
    detail = (
        f"a page from {origin[:100]!r} may change nothing here; if it is ours, add its host to MASKSMITH_ALLOWED_HOSTS"
    )
    raise RequestError(Code.FOREIGN_ORIGIN, detail)


def _is_ours(name: str, settings: Settings) -> bool:
    own = {"localhost", settings.host.lower(), socket.gethostname().lower()}
    return name in own or name in settings.hosts or name.endswith(".localhost") or is_address(name)


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
