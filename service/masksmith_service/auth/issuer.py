"""Authenticates requests by tokens of an OpenID Connect issuer, in addition to keys.

The issuer's keys are found by OpenID Connect Discovery 1.0. A token is a JSON Web Token (RFC 7519) with an asymmetric
signature; it must have this issuer, this service as its audience, a subject and an expiry.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx2
from blake3 import blake3
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, import_key

from masksmith_service.errors import RequestError
from masksmith_service.settings import Settings
from masksmith_state.keys import SCOPES_OF_ROLE, Role
from masksmith_wire.errors import Code

from .principal import Principal, default_quotas

log = logging.getLogger(__name__)

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Asymmetric signatures only: a token that is signed with a shared secret, or not at all, is not valid."""
LEEWAY_S = 30
"""Seconds by which the issuer's clock may differ from the clock of this machine."""
KEYS_AGE_S = 3600.0
"""Seconds after which the issuer's keys are fetched again."""
FETCH_PAUSE_S = 10.0
"""Seconds after a successful fetch in which a token that is not valid with the fetched keys causes no further fetch."""
MAX_DOCUMENT_BYTES = 2**20


class Issuer:
    """An issuer; its keys are fetched when the first token arrives, and again for a token that they do not verify.

    Args:
        settings: `oidc_issuer`, `oidc_audience` and `oidc_admin`, and the default quotas.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._claims = jwt.JWTClaimsRegistry(
            leeway=LEEWAY_S,
            iss={"essential": True, "value": settings.oidc_issuer},
            aud={"essential": True, "value": settings.oidc_audience},
            sub={"essential": True},
            exp={"essential": True},
        )
        self._keys, self._fetched_at = KeySet([]), -math.inf
        self._fetching = asyncio.Lock()

    async def principal_of(self, token: str) -> Principal | None:
        """Return the sender of a request; None if the token is not valid.

        Raises:
            RequestError: 503, if the issuer's keys cannot be fetched.
        """
        if token.count(".") != 2:
            return None
        is_fresh = time.monotonic() - self._fetched_at < KEYS_AGE_S
        claims = self._verified_claims(token) if is_fresh else None
        if claims is None and await self._fetch_keys():
            claims = self._verified_claims(token)
        return None if claims is None else self._principal(claims)

    def _verified_claims(self, token: str) -> Mapping[str, Any] | None:
        try:
            claims = jwt.decode(token, self._keys, algorithms=ALGORITHMS).claims
            self._claims.validate(claims)
        except (JoseError, ValueError, TypeError) as error:
            log.debug("a token is not valid: %s", type(error).__name__)
            return None
        return claims if isinstance(claims["sub"], str) and claims["sub"] else None

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        settings = self._settings
        subject = blake3(f"{settings.oidc_issuer}\0{claims['sub']}".encode()).hexdigest(16)
        name = next((claims[claim] for claim in ("preferred_username", "email", "sub") if claims.get(claim)), "")
        role = Role.ADMIN if _has_claim(claims, settings.oidc_admin) else Role.USER
        return Principal(
            key=f"oidc-{subject}",
            name=ascii(str(name)[:100])[1:-1],
            role=role,
            quotas=default_quotas(settings),
            scopes=frozenset(SCOPES_OF_ROLE[role]),
            expires_at=float(claims["exp"]) + LEEWAY_S,
        )

    async def _fetch_keys(self) -> bool:
        """Fetch the issuer's keys, unless they were fetched less than `FETCH_PAUSE_S` ago.

        Returns whether there are new keys, fetched by this call or by another one while this call waited for the lock.
        """
        fetched_before = self._fetched_at
        async with self._fetching:
            if self._fetched_at != fetched_before:
                return True
            if time.monotonic() - self._fetched_at < FETCH_PAUSE_S:
                return False
            try:
                self._keys = await _fetch_key_set(self._settings.oidc_issuer)
            except (httpx2.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
                log.warning("the keys of issuer %s cannot be fetched: %s", self._settings.oidc_issuer, error)
                detail = "the keys of the token's issuer cannot be fetched; try again shortly, or use a key"
                raise RequestError(Code.ISSUER_UNAVAILABLE, detail, retry_after_s=5) from None
            self._fetched_at = time.monotonic()
            return True


async def _fetch_key_set(issuer: str) -> KeySet:
    async with httpx2.AsyncClient(timeout=5.0) as client:
        discovered = await _fetch(client, f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if discovered["issuer"] != issuer:
            raise ValueError(f"its discovery document names the issuer {str(discovered['issuer'])[:200]!r}")
        address = discovered["jwks_uri"]
        if urlsplit(address).scheme != urlsplit(issuer).scheme:
            raise ValueError(f"its jwks_uri {str(address)[:200]!r} has another scheme")
        documents = (await _fetch(client, address))["keys"]
    keys = []
    for document in documents:
        try:
            keys.append(import_key(document))
        except (JoseError, ValueError, TypeError) as error:
            log.info("a key of issuer %s is not used: %s", issuer, error)
    return KeySet([key for key in keys if key.key_type != "oct"])


async def _fetch(client: httpx2.AsyncClient, url: str) -> Any:
    content = bytearray()
    async with client.stream("GET", url) as response:
        response.raise_for_status()
        async for piece in response.aiter_bytes():
            content += piece
            if len(content) > MAX_DOCUMENT_BYTES:
                raise ValueError(f"{url} is larger than {MAX_DOCUMENT_BYTES} bytes")
    return json.loads(content)


def _has_claim(claims: Mapping[str, Any], required: str) -> bool:
    """Whether a token has the claim `required`, given as `NAME=VALUE`; if the claim is a list, it must contain VALUE.

    False if `required` is empty.
    """
    if not required:
        return False
    name, _, value = required.partition("=")
    value_of_token = claims.get(name)
    if isinstance(value_of_token, list):
        return value in value_of_token
    return bool(value) and value_of_token == value
