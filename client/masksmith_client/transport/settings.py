"""URL and token of the service, and which variables of the environment set proxies and certificates."""

from __future__ import annotations

import os
import re
import urllib.request
from dataclasses import dataclass, field

import httpx2

from masksmith_client._errors import InputError
from masksmith_wire.text import without_credentials

DEFAULT_URL = "http://127.0.0.1:8000"
PROXY_VARIABLES = frozenset({"all_proxy", "http_proxy", "https_proxy"})
MAX_PORT = 65535
MAX_LABEL = 63
"""Maximum length of a part of a host's name, between two dots."""
CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """The service's URL and token.

    Attributes:
        url: The URL, without user name and password; messages may show it.
        token: Token of an API key; None if there is none.
        credentials: User name and password of the URL, for a proxy in front of the service; None if it has neither.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    credentials: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def url_with_credentials(self) -> str:
        """The URL with its user name and password, if it has them."""
        if self.credentials is None:
            return self.url
        username, password = self.credentials
        return str(httpx2.URL(self.url).copy_with(username=username, password=password))

    @property
    def route(self) -> str:
        """The URL for messages about the connection; it names the variable of the proxy that requests go through."""
        variable = None if self.is_loopback else _proxy_variable(httpx2.URL(self.url))
        return self.url if variable is None else f"{self.url} through the proxy that {variable} names"

    @property
    def is_loopback(self) -> bool:
        """Whether the URL's host is one of `LOOPBACK_HOSTS`; then no proxy is used."""
        return httpx2.URL(self.url).host in LOOPBACK_HOSTS

    @property
    def is_https(self) -> bool:
        """Whether connections to the service are encrypted."""
        return httpx2.URL(self.url).scheme == "https"


def read_settings(url: str | None = None, token: str | None = None) -> ConnectionSettings:
    """Return the settings; an argument that is None or empty is read from `MASKSMITH_URL` or `MASKSMITH_TOKEN`.

    Raises:
        InputError: If the URL is malformed, not http(s), or has a query or fragment; if the token is only whitespace or
            has characters that no key has; or if the URL has a user name or password beside a token: both would be sent
            as `Authorization`.
    """
    url = url or os.environ.get("MASKSMITH_URL") or DEFAULT_URL
    token = _checked_token(token or os.environ.get("MASKSMITH_TOKEN") or None)
    shown_url = _without_secrets(url)
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        # The error may quote a part of the password: an unencoded character of it can begin a port, a path or a query.
        reason = "encode the special characters of the password (%23 for #)" if "@" in url else str(error)
        raise InputError(f"the service's URL {shown_url!r} is malformed: {reason}") from None
    except UnicodeEncodeError:
        raise InputError(f"the service's URL {shown_url!a} is malformed: it is not Unicode text (UTF-8)") from None
    if re.search("[?#]", url):  # Also an empty query: each path would be added to it.
        raise InputError(f"the service's URL {shown_url!r} has a query or a fragment, which it cannot have")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InputError(f"the service's URL {shown_url!r} must look like {DEFAULT_URL} or https://host/prefix")
    _check_authority(parsed, shown_url)
    if not parsed.userinfo:
        return ConnectionSettings(url.rstrip("/"), token)
    if token:
        raise InputError(
            f"the service's URL {shown_url!r} has a user name or password, and there is a token: only one can be sent"
        )
    url_without_credentials = str(parsed.copy_with(username=None, password=None))
    return ConnectionSettings(url_without_credentials.rstrip("/"), None, (parsed.username, parsed.password))


def _check_authority(url: httpx2.URL, shown_url: str) -> None:
    if not 0 <= (url.port or 0) <= MAX_PORT:
        raise InputError(f"the service's URL {shown_url!r} has the port {url.port}, which is not from 0 to {MAX_PORT}")
    # What no host's name may have, such as a space, is in the parsed name as %20; only an IPv6 address may have a %.
    if b"%" in url.raw_host and b":" not in url.raw_host:
        raise InputError(f"the service's URL {shown_url!r} has a host with a character that no host's name has")
    labels = url.raw_host.removesuffix(b".").split(b".")
    if not all(0 < len(label) <= MAX_LABEL for label in labels):
        raise InputError(
            f"the service's URL {shown_url!r} has a host with an empty part, or a part of over {MAX_LABEL} letters"
        )


def _checked_token(token: str | None) -> str | None:
    """Return a token without whitespace at its ends, such as the line end of the file that it was read from.

    Raises:
        InputError: If nothing remains, or if a character remains that no key has; the message does not have the token.
    """
    if token is None:
        return None
    token = token.strip()
    invalid = next((character for character in token if not "!" <= character <= "~"), None)
    if invalid is not None:
        raise InputError(
            f"the token (MASKSMITH_TOKEN, or the argument) has the character {invalid!a}, which no key has: copy it "
            "again"
        )
    if not token:
        raise InputError("the token (MASKSMITH_TOKEN, or the argument) is empty: copy it again")
    return token


def _without_secrets(url: str) -> str:
    """Return a URL, malformed or not, as an error may show it.

    What is between the scheme and the last @ is replaced by `***`; query and fragment are left out.
    """
    before, at, after = url.rpartition("@")
    shown_url = f"***@{after}" if at else url
    if "://" in before:
        shown_url = f"{before.partition('://')[0]}://{shown_url}"
    return without_credentials(re.split("[?#]", shown_url, maxsplit=1)[0])


def proxy_variables() -> list[str]:
    """Return the names of set variables that may name a proxy; not their values, since a value may have a password."""
    return [name for name in os.environ if name.lower() in PROXY_VARIABLES]


def _proxy_variable(url: httpx2.URL) -> str | None:
    """Return the name of the variable whose proxy httpx2 uses for a URL; None if it uses none."""
    proxies = urllib.request.getproxies()
    if urllib.request.proxy_bypass(url.host):
        return None
    kind = next((kind for kind in (url.scheme, "all") if proxies.get(kind)), None)
    names = sorted((name for name in os.environ if name.lower() == f"{kind}_proxy"), key=str.isupper)
    return names[0] if names else None


def certificate_variables() -> list[str]:
    """Return `NAME='VALUE'` of each variable that is set and says where the certificates of authorities are."""
    return [f"{name}={os.environ[name]!r}" for name in CERTIFICATE_VARIABLES if name in os.environ]
