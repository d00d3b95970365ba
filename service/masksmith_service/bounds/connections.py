"""Counts the connections of a process, and closes idle ones beyond the limit, or new ones beyond the reserve."""

from __future__ import annotations

from typing import Protocol

RESERVE = 32
"""Number of connections beyond the limit that may be open; on these, only `/healthz` is served."""


class Closable(Protocol):
    """What `Connections` needs of a connection."""

    @property
    def is_idle(self) -> bool:
        """Whether the connection is answering no request."""
        ...

    def abort(self) -> None:
        """Close the connection at once."""
        ...


class Connections:
    """The open connections of a process, oldest first.

    Args:
        limit: Maximum number of connections whose requests are all served.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open: dict[Closable, None] = {}

    def add(self, connection: Closable) -> bool:
        """Add a connection.

        Beyond the limit, the oldest idle connection is closed. If none is idle, and the reserve is full, the new
        connection is closed.

        Returns:
            Whether all requests of the new connection are served; if False, the connection was closed, or only its
            requests for `/healthz` are served.
        """
        self._open[connection] = None
        if len(self._open) > self.limit:
            oldest_idle = next((each for each in self._open if each.is_idle and each is not connection), None)
            is_full = len(self._open) > self.limit + RESERVE
            to_close = connection if oldest_idle is None and is_full else oldest_idle
            if to_close is not None:
                self.discard(to_close)
                to_close.abort()
        return len(self._open) <= self.limit

    def discard(self, connection: Closable) -> None:
        """Remove a connection that has ended or is about to be closed; one that was removed before is ignored."""
        self._open.pop(connection, None)

    def __len__(self) -> int:
        return len(self._open)
