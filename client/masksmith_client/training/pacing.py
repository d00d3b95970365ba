"""Decides at which steps masks are requested: in intervals, again after a failure, at once after a late response."""

from __future__ import annotations

from .refresh import Refresh


class Pacing:
    """When masks are requested.

    A request that becomes due while the one before is pending is made as soon as the response is there. So with
    responses that take longer than the interval, requests follow each other at the pace of the responses.

    Args:
        refresh: Interval, first and last step.
    """

    def __init__(self, refresh: Refresh) -> None:
        self._refresh = refresh
        self._requested_at: int | None = None
        self._is_overdue = False

    def is_due(self, step: int, *, any_dense: bool) -> bool:
        """Whether masks are to be requested after this step.

        Args:
            step: Number of optimizer steps.
            any_dense: Whether a layer has no mask yet: then requests also start between the intervals.
        """
        may_retry = self._requested_at is None or step - self._requested_at >= self._refresh.every
        has_ended = self._refresh.until is not None and step >= self._refresh.until
        return self._refresh.is_due(step) or (any_dense and may_retry) or (self._is_overdue and not has_ended)

    def on_request(self, step: int) -> None:
        """Record a request for the weights of this step."""
        self._requested_at, self._is_overdue = step, False

    def on_late(self, step: int) -> bool:
        """Record that a request is due while another is pending; return whether it has become due at this step."""
        is_new = self._refresh.is_due(step) or not self._is_overdue
        self._requested_at, self._is_overdue = step, True
        return is_new

    def reset(self, step: int) -> None:
        """Start again from a step, as after loading a checkpoint."""
        self.on_request(step)
