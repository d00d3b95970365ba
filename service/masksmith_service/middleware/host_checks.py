"""Checks of a request: host (against DNS rebinding), origin (against CSRF), and whether it is from this machine."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from masksmith_service.errors import RequestError
from masksmith_service.settings import Settings
from masksmith_wire.errors import Code

from .addresses import is_address, is_loopback

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
SINGLE_FIELDS = ("Host", "Origin", "Authorization", "Sec-Fetch-Site")
"""Headers by which access is decided; a request may have each of them at most once."""
FORWARDED = ("forwarded", "via")
FORWARDED_PREFIXES = (
    "x-forwarded-", "x-real-", "x-client-", "x-cluster-", "x-original-", "x-envoy-", "x-proxy", "cf-", "true-client-",
    "fastly-", "fly-",
)  # fmt: skip
"""Beginnings of names of headers that proxies and content delivery networks add; `FORWARDED` has whole names."""
_DELIMITERS = re.compile(r"[/?#@\\\s]")
"""Characters that end or begin other parts of a URL than host and port."""


def is_from_this_machine(headers: Mapping[str, str], settings: Settings) -> bool:
    """Whether a request to a loopback address seems to be sent on this machine, judged by its headers.

    True if it has no header of a proxy, and its host is a name or loopback address of this machine, or one of
    `allowed_hosts`.
    """
    if any(name in FORWARDED or name.startswith(FORWARDED_PREFIXES) for name in map(str.lower, headers)):
        return False
    name = _name_in_host(headers.get("host", ""))
    return name is not None and (
        is_loopback(name)
        or name in settings.allowed_host_names
        or name.endswith(".localhost")
        or name in (settings.host.lower(), socket.gethostname().lower())
    )


def check_single_fields(headers: Headers) -> None:
    """Reject a request that has one of `SINGLE_FIELDS` more than once.

    If a field is repeated, a proxy may check one of its values, and this service another value.

    Raises:
        RequestError: 400, for such a request.
    """
    for name in SINGLE_FIELDS:
        count = len(headers.getlist(name))
        if count > 1:
            raise RequestError(Code.MALFORMED_REQUEST, f"the request has {count} {name} fields; it may have one")


def check_host(headers: Headers, settings: Settings) -> None:
    """Reject a request with an unknown host name (DNS rebinding: an attacker's host name resolves to this machine).

    An IP address as host is accepted, because no name was resolved. `*` in `allowed_hosts` accepts every name.

    Raises:
        RequestError: 421, for an unknown name or a host that cannot be read; 400, for no host.
    """
    host = headers.get("host")
    if host is None:
        raise RequestError(Code.MALFORMED_REQUEST, "the request has 0 Host fields; it must have one")
    name = _name_in_host(host)
    if name is not None and (_is_known_host(name, settings) or "*" in settings.allowed_host_names):
        return
    detail = f"this service does not answer to {host[:100]!r}; if that is its name, add it to MASKSMITH_ALLOWED_HOSTS"
    raise RequestError(Code.HOST_NOT_ALLOWED, detail)


def check_origin(method: str, headers: Mapping[str, str], settings: Settings) -> None:
    """Reject writes that pages of other origins send, unless the origin's host is one of `allowed_hosts`.

    Only host and port of an origin are compared with the request's host, not the scheme.

    Raises:
        RequestError: 403, for such a write.
    """
    origin = headers.get("origin")
    if method in SAFE_METHODS or (origin is None and headers.get("sec-fetch-site") != "cross-site"):
        return
    origin = origin or "null"
    if origin.partition("://")[2] == headers.get("host") or _hostname(origin) in settings.allowed_host_names:
        return
    detail = f"a page from {origin[:100]!r} may not write here; if trusted, add its host to MASKSMITH_ALLOWED_HOSTS"
    raise RequestError(Code.FOREIGN_ORIGIN, detail)


def _is_known_host(name: str, settings: Settings) -> bool:
    """Whether a host is a name of this machine, one of `allowed_hosts`, or any IP address."""
    names_of_machine = {"localhost", settings.host.lower(), socket.gethostname().lower()}
    return (
        name in names_of_machine
        or name in settings.allowed_host_names
        or name.endswith(".localhost")
        or is_address(name)
    )


def _name_in_host(host: str) -> str | None:
    """Return the name in a Host field, in lower case; None if the field has no name, or more than a name and a port."""
    return None if _DELIMITERS.search(host) else _hostname("//" + host)


def _hostname(url: str) -> str | None:
    """Return the host of a URL in lower case, without a port; None if the URL has no host or cannot be parsed."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
