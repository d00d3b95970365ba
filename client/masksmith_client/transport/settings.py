"""Where the service is and who asks: arguments first, then the environment, then the default."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import httpx2

from masksmith_client._errors import InputError

DEFAULT_URL = "http://127.0.0.1:8000"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class Settings:
    """The service's address and the key to it."""

    url: str
    token: str | None = field(default=None, repr=False)

    @property
    def is_loopback(self) -> bool:
        """Whether the service runs on this machine, so that no proxy can be meant."""
        return httpx2.URL(self.url).host in LOOPBACK


def settings(url: str | None = None, token: str | None = None) -> Settings:
    """Fill in from `MASKSMITH_URL` and `MASKSMITH_TOKEN` what is not given.

    Raises:
        InputError: If the address is no http(s) URL.
    """
    url = url or os.environ.get("MASKSMITH_URL") or DEFAULT_URL
    token = token or os.environ.get("MASKSMITH_TOKEN") or None
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise InputError(f"the service's URL {url!r} is malformed: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InputError(f"the service's URL {url!r} must look like {DEFAULT_URL} or https://host/prefix")
    return Settings(url.rstrip("/"), token)
