"""Retry policy: which failures are retried, how often, and after which pauses; converts failures to `ClientError`."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass

import httpx2

from masksmith_client._errors import (
    ClientError,
    ConnectError,
    SlowResponseError,
    StatusError,
    TimeoutError,
    TransportError,
    WireError,
)
from masksmith_wire.headers import HeaderError
from masksmith_wire.text import printable, without_credentials

log = logging.getLogger("masksmith_client")

FAILURES = (httpx2.RequestError, ClientError, HeaderError)
"""Exceptions that end an attempt; `as_client_error` converts them."""
RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, 507})
"""HTTP statuses that are retried, whatever the error code."""
RETRIED_CODES = frozenset({"body_incomplete"})
"""Error codes that are retried, whatever the status."""
MAX_DOUBLINGS = 30
"""Maximum exponent of 2 in a pause; without a maximum, the power of 2 would overflow in a long outage."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and after which pauses, failed requests are retried.

    Attributes:
        retries: Maximum number of retries of one call; those after failed connections are not counted.
        first_contact_retries: Maximum number of retries of failed connections to a service that has never answered,
            whose URL may be wrong. If `retries` is lower, `retries` is this maximum.
        first_s: Maximum pause before the second attempt, in seconds; it doubles with each attempt.
        longest_s: Maximum pause before any attempt, unless a `Retry-After` header asks for a longer one.
        longest_retry_after_s: Maximum `Retry-After` that is waited for; if it is longer, the error is raised at once.
        outage_s: How long to retry failed connections to a service that has answered before, for example during a
            restart: from the first of several failed connections in a row, or from the first failure of a job's event
            stream.
    """

    retries: int = 4
    first_contact_retries: int = 2
    first_s: float = 0.5
    longest_s: float = 8.0
    longest_retry_after_s: float = 60.0
    outage_s: float = 120.0

    def pause_s(self, attempt: int) -> float:
        """Return the pause after attempt number `attempt` (from 0): exponential backoff with jitter."""
        # The jitter needs no cryptographic randomness.
        return min(self.first_s * 2.0 ** min(attempt, MAX_DOUBLINGS), self.longest_s) * random.uniform(0.5, 1.0)


class Attempts:
    """Counts the failed attempts of one call, and decides whether and when there is another attempt.

    Args:
        policy: The retry policy.
        url: The service's URL as messages show it, with the proxy through which requests go, if they do.
        has_answered: Whether the service has answered before this call; then connection errors are retried for
            `policy.outage_s`.
    """

    def __init__(self, policy: RetryPolicy, url: str, *, has_answered: bool = False) -> None:
        self._policy = policy
        self._url = url
        self._has_answered = has_answered
        self._failures = 0
        self._connect_failures = 0
        self._unreachable_since: float | None = None

    def record_failure(self, error: Exception) -> float:
        """Count a failed attempt; return the pause before the next one, in seconds.

        Raises:
            ClientError: The error as one of this package's exceptions, if it is not retried.
        """
        failure = as_client_error(error, self._url)
        if not isinstance(failure, ConnectError):
            self._unreachable_since = None
        elif self._unreachable_since is None:
            self._unreachable_since = time.monotonic()
        retry_after_s = (failure.retry_after_s or 0.0) if isinstance(failure, StatusError) else 0.0
        if not is_transient(failure) or self._is_over(failure) or retry_after_s > self._policy.longest_retry_after_s:
            raise failure from error
        pause_s = max(self._policy.pause_s(self._failures), retry_after_s)
        self._failures += 1
        self._connect_failures += isinstance(failure, ConnectError)
        # A call to a service that has answered before gives one warning, but none for a single failure.
        if self._failures == 2 and self._has_answered:
            log.warning("%s; retrying", printable(str(failure)))
        return pause_s

    def _is_over(self, error: ClientError) -> bool:
        """Whether the policy allows no further retry after an error."""
        if not isinstance(error, ConnectError):
            return self._failures - self._connect_failures >= self._policy.retries
        if self._has_answered and self._unreachable_since is not None:
            return time.monotonic() - self._unreachable_since >= self._policy.outage_s
        return self._failures >= min(self._policy.retries, self._policy.first_contact_retries)


def is_transient(error: ClientError) -> bool:
    """Whether a retry of the same request may succeed."""
    if isinstance(error, StatusError):
        return error.status in RETRIED_STATUSES or error.code in RETRIED_CODES
    return isinstance(error, TransportError) and not isinstance(error, (WireError, SlowResponseError))


def as_client_error(error: Exception, url: str) -> ClientError:
    """Convert one of `FAILURES` to an exception of this package; a `ClientError` stays as it is."""
    if isinstance(error, ClientError):
        return error
    if isinstance(error, HeaderError):
        return TransportError(f"the download is incomplete: {error}")
    if isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout)):
        reason = without_credentials(str(error)) or type(error).__name__
        return ConnectError(f"no masksmith service answers at {url} ({reason}); start one with 'masksmith up'")
    if isinstance(error, httpx2.TimeoutException):
        return TimeoutError(f"{url} took too long to answer ({type(error).__name__})")
    reason = without_credentials(str(error)) or type(error).__name__
    return TransportError(f"the connection to {url} was lost: {reason}")
