"""Decide at which steps masks are requested: when a refresh is due, after a late response, if masks are missing."""

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
        # Step at which masks were last requested, or at which a refresh last became due while a request was pending.
        self._last_due: int | None = None
        self._is_overdue = False
        self._last_pattern = ""

    def is_due(self, step: int, *, any_dense: bool, new_pattern: str | None = None) -> bool:
        """Whether masks are to be requested after this step.

        Args:
            step: Number of optimizer steps.
            any_dense: Whether a layer has no mask. Then masks are also requested before `begin` and after `until`: at
                once if masks were never requested; else at most every `every` steps, counted from the last request or,
                if it is later, from the last refresh that was late.
            new_pattern: The pattern of this step if it is not that of the masks, because the schedule has changed it;
                else None. Before `until` it has no effect: the next refresh that is due uses it. After `until`, masks
                are requested as if a layer had none; if no refresh is ever due (`until` is 0), at once for each
                pattern.
        """
        may_retry = self._last_due is None or step - self._last_due >= self._refresh.every
        has_ended = self._refresh.until is not None and step >= self._refresh.until
        if has_ended and new_pattern is not None:
            return may_retry or (self._refresh.until == 0 and new_pattern != self._last_pattern)
        return self._refresh.is_due(step) or (any_dense and may_retry) or (self._is_overdue and not has_ended)

    def on_request(self, step: int, pattern: str) -> None:
        """Record a request for masks of this pattern, for the weights of this step."""
        self._last_due, self._is_overdue, self._last_pattern = step, False, pattern

    def on_late(self, step: int) -> bool:
        """Record that a refresh is due while a request is pending; return whether it has become due at this step.

        False for a refresh that became due at an earlier step and still waits for the pending request.
        """
        is_new = self._refresh.is_due(step) or not self._is_overdue
        self._last_due, self._is_overdue = step, True
        return is_new

    def reset(self) -> None:
        """Start as at the beginning, after loading a checkpoint: if a layer has no mask, masks are due at once."""
        self._last_due, self._is_overdue = None, False
