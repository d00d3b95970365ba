"""How the refresh process makes its source of masks: a client's configuration, or the library."""

from __future__ import annotations

from dataclasses import replace

from pydantic import BaseModel

from masksmith_client._client import Client, ClientConfiguration

from .shared_memory import Slot
from .sources import Function, Service, Source

OUTAGE_S = 10.0
"""Longest wait for a service that is out of reach: after it, masks of newer weights are worth more."""


class Start(BaseModel):
    """The first line that the refresh process reads; without a client the library solves in that process."""

    client: ClientConfiguration | None
    slots: list[Slot]
    fd: int
    cores: list[int] | None

    def source(self) -> Source:
        """Make the source of masks."""
        if self.client is not None:
            url, token, timeout_s, retry = self.client.url, self.client.token, self.client.timeout_s, self.client.retry
            retry = replace(retry, outage_s=min(retry.outage_s, OUTAGE_S))
            return Service(Client(url, token, timeout_s=timeout_s, retry=retry))
        import masksmith

        return Function(masksmith.solve)
