"""How the asking process makes its source: the address of a service, or the library."""

from __future__ import annotations

from dataclasses import asdict, replace

from pydantic import BaseModel

from masksmith_client._client import Client
from masksmith_client.transport.retry import RetryPolicy

from .shared_memory import Slot
from .sources import Function, Service, Source

OUTAGE_S = 10.0
"""Longest wait for a service that is out of reach: later, masks are better asked for anew, for newer weights."""


class Recipe(BaseModel):
    """A service's address and the key to it; the library where there is no address."""

    url: str | None = None
    token: str | None = None
    timeout_s: float | None = None
    retry: dict[str, float] = {}

    @classmethod
    def of(cls, client: Client) -> Recipe | None:
        """Describe a client; None if it has a transport of its own."""
        given = client.configuration
        if given is None:
            return None
        retry = replace(given.retry, outage_s=min(given.retry.outage_s, OUTAGE_S))
        return cls(url=given.url, token=given.token, timeout_s=given.timeout_s, retry=asdict(retry))

    def source(self) -> Source:
        """Make the source."""
        if self.url is not None:
            policy = RetryPolicy(**self.retry)  # type: ignore[arg-type]
            return Service(Client(self.url, self.token, timeout_s=self.timeout_s, retry=policy))
        import masksmith

        return Function(masksmith.solve)


class Start(BaseModel):
    """The first line that the asking process reads."""

    recipe: Recipe
    slots: list[Slot]
    fd: int
    cores: list[int] | None
