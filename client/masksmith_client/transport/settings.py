"""URL and token of the service: from arguments, the environment, or the default."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import httpx2

from masksmith_client._errors import InputError

DEFAULT_URL = "http://127.0.0.1:8000"
PROXY_VARIABLES = frozenset({"all_proxy", "http_proxy", "https_proxy", "no_proxy"})
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """The service's URL and token."""

    url: str
    token: str | None = field(default=None, repr=False)

    @property
    def is_loopback(self) -> bool:
        """Whether the service runs on this machine, so that no proxy is used."""
        return httpx2.URL(self.url).host in LOOPBACK


def read_settings(url: str | None = None, token: str | None = None) -> ConnectionSettings:
    """Return the settings; missing arguments are read from `MASKSMITH_URL` and `MASKSMITH_TOKEN`.

    Raises:
        InputError: If the URL is malformed or not http(s).
    """
    url = url or os.environ.get("MASKSMITH_URL") or DEFAULT_URL
    token = token or os.environ.get("MASKSMITH_TOKEN") or None
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise InputError(f"the service's URL {url!r} is malformed: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InputError(f"the service's URL {url!r} must look like {DEFAULT_URL} or https://host/prefix")
    return ConnectionSettings(url.rstrip("/"), token)


def proxy_variables() -> list[str]:
    """Return the environment variables that name a proxy, without their values, which may have a password."""
    return [name for name in os.environ if name.lower() in PROXY_VARIABLES]
