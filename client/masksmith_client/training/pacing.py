"""Decide at which steps masks are requested: at intervals, sooner for layers without a mask, after a late response."""

from __future__ import annotations

from .refresh import Refresh


class Pacing:
    """Decides when masks are requested.

    A request that becomes due while the previous one is pending is made as soon as the response to the previous one
    arrives, unless the refreshes have ended by then. So if responses take longer than the interval, each response is
    followed by a request at once.

    Args:
        refresh: The interval, and the steps between which refreshes are due.
    """

    def __init__(self, refresh: Refresh) -> None:
        self._refresh = refresh
        self._requested_at: int | None = None
        self._is_overdue = False

    def is_due(self, step: int, *, any_dense: bool) -> bool:
        """Whether masks are to be requested after this step.

        Args:
            step: Number of optimizer steps.
            any_dense: Whether a layer has no mask: then masks are also requested as soon as the last request is an
                interval ago, or if there was none; at any step, before `begin` and after `until`, too.
        """
        may_retry = self._requested_at is None or step - self._requested_at >= self._refresh.every
        has_ended = self._refresh.until is not None and step >= self._refresh.until
        return self._refresh.is_due(step) or (any_dense and may_retry) or (self._is_overdue and not has_ended)

    def on_request(self, step: int) -> None:
        """Record a request for the weights of this step."""
        self._requested_at, self._is_overdue = step, False

    def on_late(self, step: int) -> bool:
        """Record that a request is due while another is pending; return whether one became due at this very step."""
        is_new = self._refresh.is_due(step) or not self._is_overdue
        self._requested_at, self._is_overdue = step, True
        return is_new

    def reset(self, step: int) -> None:
        """Start again from a step, as after loading a checkpoint."""
        self.on_request(step)
