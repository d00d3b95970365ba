"""Fetches the keys of an OpenID Connect issuer, by OpenID Connect Discovery 1.0, and keeps them for a time."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from typing import Any
from urllib.parse import urlsplit

import httpx2
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, import_key

log = logging.getLogger(__name__)

KEYS_AGE_S = 3600.0
"""Seconds after which the issuer's keys are fetched again."""
MAX_KEYS_AGE_S = 86_400.0
"""Seconds for which keys verify tokens while the issuer cannot be reached."""
FETCH_PAUSE_S = 10.0
"""Seconds after a fetch, successful or not, in which there is no further one."""
FETCH_TIMEOUT_S = 5.0
MAX_DOCUMENT_BYTES = 2**20
_EDWARDS_ALGORITHMS = ("EdDSA", "Ed25519", "Ed448")
_FETCH_ERRORS = (
    *(httpx2.HTTPError, httpx2.InvalidURL, TimeoutError),
    # Raised for a document that does not have the expected form.
    *(ValueError, KeyError, TypeError, AttributeError, RecursionError),
)


class IssuerKeys:
    """The keys of an issuer; none is known before the first update.

    Args:
        issuer: URL of the issuer.

    Attributes:
        has_fetch_failed: Whether the last fetch failed, or was canceled.
    """

    def __init__(self, issuer: str) -> None:
        self._issuer, self._keys = issuer, KeySet([])
        self._fetched_at = self._tried_at = -math.inf
        self._fetching = asyncio.Lock()
        self.has_fetch_failed = False

    @property
    def known_keys(self) -> KeySet:
        """The keys that were fetched last; none once they are older than `MAX_KEYS_AGE_S`."""
        return self._keys if time.monotonic() - self._fetched_at < MAX_KEYS_AGE_S else KeySet([])

    @property
    def is_due(self) -> bool:
        """Whether the keys are to be fetched before they are used again.

        True if they were never fetched, or at least `KEYS_AGE_S` ago; but False while another call fetches them, and
        for `FETCH_PAUSE_S` after a fetch.
        """
        is_old = time.monotonic() - self._fetched_at >= KEYS_AGE_S
        return is_old and self._may_fetch() and not self._fetching.locked()

    async def update(self) -> bool:
        """Fetch the keys, unless this was tried less than `FETCH_PAUSE_S` ago.

        Returns:
            Whether the keys were fetched: by this call; or by another call, while this one waited.
        """
        tried_before = self._tried_at
        async with self._fetching:
            if self._tried_at != tried_before:
                return not self.has_fetch_failed
            if not self._may_fetch():
                return False
            self.has_fetch_failed = True  # Until the fetch succeeds; it stays True if this call is canceled.
            try:
                async with asyncio.timeout(FETCH_TIMEOUT_S):
                    self._keys = await _fetch_key_set(self._issuer)
                self._fetched_at, self.has_fetch_failed = time.monotonic(), False
            except _FETCH_ERRORS as error:
                reason = str(error) or type(error).__name__  # Timeouts have no text.
                log.warning("the keys of issuer %s cannot be fetched: %s", self._issuer, reason)
            finally:
                self._tried_at = time.monotonic()
            return not self.has_fetch_failed

    def _may_fetch(self) -> bool:
        return time.monotonic() - self._tried_at >= FETCH_PAUSE_S


async def _fetch_key_set(issuer: str) -> KeySet:
    async with httpx2.AsyncClient(timeout=FETCH_TIMEOUT_S) as client:
        discovery_document = await _fetch(client, f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if discovery_document["issuer"] != issuer:
            raise ValueError(f"its discovery document names the issuer {str(discovery_document['issuer'])[:200]!r}")
        address = discovery_document["jwks_uri"]
        if urlsplit(address).scheme != urlsplit(issuer).scheme:
            raise ValueError(f"its jwks_uri {str(address)[:200]!r} has another scheme")
        documents = (await _fetch(client, address))["keys"]
    keys = []
    for document in documents:
        try:
            if not isinstance(document, dict):  # A text would be taken for a symmetric key.
                raise TypeError(f"it is a {type(document).__name__}")
            keys.append(import_key(_without_edwards_algorithm(document)))
        except (JoseError, ValueError, TypeError, KeyError) as error:  # KeyError: for a curve that is not known.
            log.info("a key of issuer %s is not used: %s: %s", issuer, type(error).__name__, error)
    # A symmetric key that is published is not secret: anybody could sign tokens with it.
    return KeySet([key for key in keys if key.key_type != "oct"])


def _without_edwards_algorithm(document: dict[str, Any]) -> dict[str, Any]:
    """Return a key without `alg` if that is a name of Edwards curve signatures.

    Such a signature has two names, `EdDSA` and that of the curve (RFC 9864), but joserfc accepts only the one in the
    key's `alg`. Without it, joserfc accepts both, and still compares the curve.
    """
    return {name: value for name, value in document.items() if name != "alg" or value not in _EDWARDS_ALGORITHMS}


async def _fetch(client: httpx2.AsyncClient, url: str) -> Any:
    content = bytearray()
    async with client.stream("GET", url) as response:
        response.raise_for_status()
        async for piece in response.aiter_bytes():
            content += piece
            if len(content) > MAX_DOCUMENT_BYTES:
                raise ValueError(f"{url} is larger than {MAX_DOCUMENT_BYTES} bytes")
    return json.loads(content)
