"""Retry policy: which failures are retried, how often, and after which pauses."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass

import httpx2

from masksmith_client._errors import ClientError, ConnectError, StatusError, TimeoutError, TransportError, WireError
from masksmith_wire.headers import HeaderError
from masksmith_wire.text import printable, without_credentials

log = logging.getLogger("masksmith_client")

FAILURES = (httpx2.RequestError, ClientError, HeaderError)
RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, 507})
RETRIED_CODES = frozenset({"body_incomplete"})
MAX_DOUBLINGS = 30
"""Bound of the exponent of pauses, since powers would overflow in a long outage."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and after which pauses, failed requests are retried.

    Attributes:
        retries: Attempts after the first.
        first_contact_retries: Retries while nothing has ever answered at the URL, which may be wrong.
        first_s: Pause before the second attempt, in seconds; doubles with each attempt.
        longest_s: Maximum pause; a `Retry-After` header may be longer.
        longest_retry_after_s: Maximum `Retry-After` that is waited for; with a longer one the error is raised at once.
        outage_s: How long to retry a service that has answered before but is unreachable, for example during a restart.
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
    """Counts the failed attempts of one call.

    Args:
        policy: The retry policy.
        url: The service's URL, for messages.
        reached: Whether the service has answered before; then connection errors are retried for `policy.outage_s`.
    """

    def __init__(self, policy: RetryPolicy, url: str, *, reached: bool = False) -> None:
        self._policy = policy
        self._url = url
        self._reached = reached
        self._failed = 0
        self._connect_failures = 0
        self._since = time.monotonic()

    def record_failure(self, error: Exception) -> float:
        """Count a failed attempt; return the pause before the next one, in seconds.

        Raises:
            ClientError: The error as one of this package's exceptions, if it is not retried.
        """
        failure = as_client_error(error, self._url)
        pause_s = self._policy.pause_s(self._failed)
        if isinstance(failure, StatusError) and failure.retry_after_s is not None:
            pause_s = max(pause_s, failure.retry_after_s)
        if not is_transient(failure) or self._is_over(failure) or pause_s > self._policy.longest_retry_after_s:
            raise failure from error
        self._failed += 1
        self._connect_failures += isinstance(failure, ConnectError)
        if self._failed == 2 and self._reached:
            log.warning("%s; retrying", printable(str(failure)))
        return pause_s

    def _is_over(self, error: ClientError) -> bool:
        if not isinstance(error, ConnectError):
            return self._failed - self._connect_failures >= self._policy.retries
        if self._reached:
            return time.monotonic() - self._since > self._policy.outage_s
        return self._failed >= min(self._policy.retries, self._policy.first_contact_retries)


def is_transient(error: ClientError) -> bool:
    """Whether a retry of the same request may succeed."""
    if isinstance(error, StatusError):
        return error.status in RETRIED_STATUSES or error.code in RETRIED_CODES
    return isinstance(error, TransportError) and not isinstance(error, WireError)


def as_client_error(error: Exception, url: str) -> ClientError:
    """Convert one of `FAILURES` to an exception of this package."""
    if isinstance(error, ClientError):
        return error
    if isinstance(error, HeaderError):
        return TransportError(f"the download is incomplete: {error}")
    if isinstance(error, httpx2.ConnectError):
        reason = without_credentials(str(error))
        return ConnectError(f"no masksmith service answers at {url} ({reason}); start one with 'masksmith up'")
    if isinstance(error, httpx2.TimeoutException):
        return TimeoutError(f"{url} took too long to answer ({type(error).__name__})")
    reason = without_credentials(str(error)) or type(error).__name__
    return TransportError(f"the connection to {url} was lost: {reason}")
