"""Counts the connections of a process, and closes idle ones beyond the limit, or new ones beyond the reserve."""

from __future__ import annotations

from itertools import islice
from typing import Protocol

RESERVE = 32
"""Number of connections beyond the limit that may be open; on these, only `/healthz` is served."""


class Closable(Protocol):
    """What `Connections` needs of a connection."""

    @property
    def is_idle(self) -> bool:
        """Whether the connection is answering no request, and has sent all of its responses."""
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

        If more connections than the limit are open, idle ones other than the new one are closed, the oldest first,
        until the limit is met. If too few are idle, and the reserve is full, the new connection is closed.

        Returns:
            Whether all requests of the new connection are served; if False, the connection was closed, or only its
            requests for `/healthz` are served.
        """
        self._open[connection] = None
        excess = max(0, len(self._open) - self.limit)
        oldest_idle = islice((each for each in self._open if each.is_idle and each is not connection), excess)
        for each in list(oldest_idle):
            self._close(each)
        if len(self._open) > self.limit + RESERVE:
            self._close(connection)
        return len(self._open) <= self.limit

    def _close(self, connection: Closable) -> None:
        self.discard(connection)
        connection.abort()

    def discard(self, connection: Closable) -> None:
        """Remove a connection that has ended or is about to be closed; one that was removed before is ignored."""
        self._open.pop(connection, None)

    def __len__(self) -> int:
        return len(self._open)
