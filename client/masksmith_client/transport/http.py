"""The arguments of httpx2 clients, blocking and asynchronous; errors of their creation; and how requests are built."""

from __future__ import annotations

import platform
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from masksmith_client._errors import InputError
from masksmith_client._version import __version__
from masksmith_wire import WIRE_VERSION

from .calls import Call, not_unicode_error
from .response_heads import limit_head
from .settings import ConnectionSettings, certificate_variables, proxy_variables

DEFAULT_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 5.0


def client_options(settings: ConnectionSettings, timeout_s: float | None) -> dict[str, Any]:
    """Return the arguments that `httpx2.Client` and `httpx2.AsyncClient` both get."""
    headers = {
        "user-agent": f"masksmith/{__version__} (wire {WIRE_VERSION}; Python {platform.python_version()})",
        "accept": "application/json",
        # No compression: a small compressed body may need any amount of memory when it is decoded.
        "accept-encoding": "identity",
    }
    if settings.token:
        headers["authorization"] = f"Bearer {settings.token}"
    return {
        "base_url": settings.url,
        "auth": settings.credentials,
        "headers": headers,
        "timeout": _timeouts(timeout_s),
        # For a service on this machine, the environment's proxy is not used; the environment's certificates are, see
        # `_verification`.
        "trust_env": not settings.is_loopback,
        "verify": _verification(settings),
    }


def _verification(settings: ConnectionSettings) -> ssl.SSLContext | bool:
    """Return the argument `verify` of a client.

    Returns:
        For https, a context with the certificates of the environment, also for a service on this machine. For http on
        this machine, where no connection uses TLS, a context that trusts no certificate, because reading certificates
        takes a tenth of the command line's start. For other http, True: a proxy may use TLS.
    """
    if settings.is_https:
        return httpx2.create_ssl_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if settings.is_loopback else True


@contextmanager
def environment_errors_as_input_errors() -> Iterator[None]:
    """Convert errors of creating an HTTP client to `InputError`: they come from proxies and certificates."""
    try:
        yield
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        names = " or ".join(proxy_variables())
        # On macOS and Windows, proxies without a variable come from the system's settings.
        where = f"that {names} names" if names else "in the system's settings"
        remedy = "unset the variable" if names else "set NO_PROXY=*"
        reason = "its URL must look like http://host:port, https://host:port or socks5://host:port"
        if isinstance(error, ImportError):
            reason = "SOCKS needs the package socksio: pip install socksio"
        raise InputError(f"the proxy {where} cannot be used: {reason}; or {remedy}") from None
    except OSError as error:
        variables = " and ".join(certificate_variables())
        where = f" of {variables}" if variables else " of this machine"
        remedy = "; correct or unset the variable" if variables else ""
        reason = error.strerror or str(error)
        raise InputError(f"the certificates{where} cannot be read: {reason}{remedy}") from None


def build_request(
    http: httpx2.Client | httpx2.AsyncClient,
    call: Call[Any],
    content: Iterator[bytes] | AsyncIterator[bytes] | None,
    read_timeout_s: float | None = None,
) -> httpx2.Request:
    """Build the request of a call; `read_timeout_s`, if it is not None, replaces the client's read timeout.

    Raises:
        InputError: If the address of the request is malformed, such as one with a job's id that is too long, or if a
            parameter is not Unicode text.
    """
    params, headers = dict(call.params), dict(call.headers)
    try:
        request = http.build_request(call.method, call.path, params=params, headers=headers, content=content)
    except httpx2.InvalidURL as error:
        raise InputError(f"the address {call.path[:80]!r} of the request is malformed: {error}") from None
    except UnicodeEncodeError as error:
        raise not_unicode_error(error) from None
    if read_timeout_s is not None:
        request.extensions["timeout"] = {**request.extensions["timeout"], "read": read_timeout_s}
    limit_head(request, is_async=isinstance(http, httpx2.AsyncClient))
    return request


def _timeouts(timeout_s: float | None) -> httpx2.Timeout:
    """Return the timeouts: `timeout_s` for each read and write, and at most `CONNECT_TIMEOUT_S` for connecting.

    The wait for a free connection of the pool has no timeout.
    """
    connect_s = CONNECT_TIMEOUT_S if timeout_s is None else min(timeout_s, CONNECT_TIMEOUT_S)
    return httpx2.Timeout(timeout_s, connect=connect_s, pool=None)
