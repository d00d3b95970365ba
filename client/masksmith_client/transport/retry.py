"""When to try again, and after how long: decided here, executed by the drivers."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass

import httpx2

from masksmith_client._errors import ClientError, ConnectError, StatusError, TimeoutError, TransportError, WireError
from masksmith_wire.headers import HeaderError

log = logging.getLogger("masksmith_client")

FAILURES = (httpx2.RequestError, ClientError, HeaderError)
RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, 507})
RETRIED_CODES = frozenset({"body_incomplete"})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and after which pauses, failed requests are sent again.

    Attributes:
        retries: Attempts after the first.
        first_contact_retries: The same, while nothing has ever answered at the URL, which may be wrong.
        first_s: Pause before the second attempt; doubles with every further one.
        longest_s: Longest pause; a `Retry-After` may be longer.
        longest_retry_after_s: Longest `Retry-After` that is waited for; beyond it the error is raised at once.
        outage_s: How long a service that answered before may be out of reach, as while it restarts.
    """

    retries: int = 4
    first_contact_retries: int = 2
    first_s: float = 0.5
    longest_s: float = 8.0
    longest_retry_after_s: float = 60.0
    outage_s: float = 120.0

    def pause_s(self, attempt: int) -> float:
        """Pause after failed attempt number `attempt` (from 0), with jitter so that clients do not retry in step."""
        # ruff's S311 does not apply: nothing secret hangs on the jitter.
        return min(self.first_s * 2.0**attempt, self.longest_s) * random.uniform(0.5, 1.0)


class Attempts:
    """Counts the attempts of one call.

    Args:
        policy: When and how often to try again.
        url: The service's URL, for messages.
        reached: Whether the service has answered before: then it may be restarting, which is waited for.
    """

    def __init__(self, policy: RetryPolicy, url: str, *, reached: bool = False) -> None:
        self._policy = policy
        self._url = url
        self._reached = reached
        self._failed = 0
        self._out_of_reach = 0
        self._since = time.monotonic()

    def pause_s(self, error: Exception) -> float:
        """Give the pause before the next attempt.

        Raises:
            ClientError: The error in this package's terms, if another attempt is useless or there were enough.
        """
        failure = as_client_error(error, self._url)
        pause_s = self._policy.pause_s(self._failed)
        if isinstance(failure, StatusError) and failure.retry_after_s is not None:
            pause_s = max(pause_s, failure.retry_after_s)
        if not is_passing(failure) or self._is_over(failure) or pause_s > self._policy.longest_retry_after_s:
            raise failure from error
        self._failed += 1
        self._out_of_reach += isinstance(failure, ConnectError)
        if self._failed == 2 and self._reached:
            log.warning("%s; trying again", failure)
        return pause_s

    def _is_over(self, error: ClientError) -> bool:
        if not isinstance(error, ConnectError):
            return self._failed - self._out_of_reach >= self._policy.retries
        if self._reached:
            return time.monotonic() - self._since > self._policy.outage_s
        return self._failed >= min(self._policy.retries, self._policy.first_contact_retries)


def is_passing(error: ClientError) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, StatusError):
        return error.status in RETRIED_STATUSES or error.code in RETRIED_CODES
    return isinstance(error, TransportError) and not isinstance(error, WireError)


def as_client_error(error: Exception, url: str) -> ClientError:
    """Give the exception of this package for one of `FAILURES`."""
    if isinstance(error, ClientError):
        return error
    if isinstance(error, HeaderError):
        return TransportError(f"the download was cut: {error}")
    if isinstance(error, httpx2.ConnectError):
        return ConnectError(f"no masksmith service answers at {url} ({error}); start one with 'masksmith up'")
    if isinstance(error, httpx2.TimeoutException):
        return TimeoutError(f"{url} took too long to answer ({type(error).__name__})")
    return TransportError(f"the connection to {url} broke: {error or type(error).__name__}")
