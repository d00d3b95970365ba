"""A flag that a signal handler can set at any moment."""

from __future__ import annotations


class StopFlag:
    """Whether this process must stop.

    Unlike `threading.Event` it has no lock: a signal handler that sets an event waits for ever if the code that the
    signal has interrupted holds the lock of the event.
    """

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        """Set the flag."""
        self._is_set = True

    def is_set(self) -> bool:
        """Whether the flag is set."""
        return self._is_set
