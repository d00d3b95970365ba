"""Finds the user that a token of an OpenID Connect issuer names; the service accepts such tokens besides its own keys.

A token is a JSON Web Token (RFC 7519) with an asymmetric signature by one of the issuer's keys. Its claims must name
the issuer of the settings, this service as the audience, a subject and an expiry.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping
from typing import Any

from blake3 import blake3
from joserfc import jwt
from joserfc.errors import JoseError

from masksmith_service.errors import RequestError
from masksmith_service.settings import Settings
from masksmith_state.keys import SCOPES_OF_ROLE, Role
from masksmith_wire.errors import Code

from .issuer_keys import FETCH_PAUSE_S, IssuerKeys
from .principal import Principal, default_quotas

log = logging.getLogger(__name__)

ALGORITHMS = [
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"),
    *("EdDSA", "Ed25519", "Ed448"),  # RFC 9864 names the curve instead of `EdDSA`.
]
"""Asymmetric signatures only: a token that is signed with a shared secret, or not at all, is not valid."""
LEEWAY_S = 30
"""Seconds by which the issuer's clock may differ from the clock of this machine."""


class Issuer:
    """An issuer, and the users that its tokens name.

    Args:
        settings: The class uses `oidc_issuer`, which must not be empty, `oidc_audience`, `oidc_admin` and the default
            quotas.
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
        self._keys = IssuerKeys(settings.oidc_issuer)

    async def principal_of(self, token: str) -> Principal | None:
        """Return the user that a token names; None if the token is not valid.

        Raises:
            RequestError: 503, if the token is not valid by the keys that are known, and the last fetch of the issuer's
                keys failed.
        """
        # A signed JSON Web Token has three parts.
        if token.count(".") != 2:
            return None
        is_due = self._keys.is_due
        if is_due:
            await self._keys.update()
        claims = self._verified_claims(token)
        # The issuer may have signed the token with a key that it has added since the last fetch.
        if claims is None and not is_due and await self._keys.update():
            claims = self._verified_claims(token)
        if claims is None and self._keys.has_fetch_failed:
            detail = "the keys of the token's issuer cannot be fetched; try again shortly, or use a masksmith key"
            raise RequestError(Code.ISSUER_UNAVAILABLE, detail, retry_after_s=math.ceil(FETCH_PAUSE_S))
        return None if claims is None else self._principal(claims)

    def _verified_claims(self, token: str) -> Mapping[str, Any] | None:
        try:
            with warnings.catch_warnings():
                # joserfc warns of the older name `EdDSA`, which issuers still use.
                warnings.filterwarnings("ignore", message="EdDSA is deprecated")
                claims = jwt.decode(token, self._keys.known_keys, algorithms=ALGORITHMS).claims
            self._claims.validate(claims)
            is_usable = _has_usable_subject(claims) and math.isfinite(float(claims["exp"]))
        # A claim may be nested too deeply, its text may have no UTF-8 form, or its number may be beyond floats.
        except (JoseError, ValueError, TypeError, RecursionError, OverflowError) as error:
            log.debug("a token is not valid: %s", type(error).__name__)
            return None
        return claims if is_usable else None

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        settings = self._settings
        subject = blake3(f"{settings.oidc_issuer}\0{claims['sub']}".encode()).hexdigest(16)
        name = next(claims[claim] for claim in ("preferred_username", "email", "sub") if claims.get(claim))
        role = Role.ADMIN if _has_claim(claims, settings.oidc_admin) else Role.USER
        return Principal(
            key=f"oidc-{subject}",
            name=ascii(str(name)[:100])[1:-1],  # Without the quotes that `ascii` adds.
            role=role,
            quotas=default_quotas(settings),
            scopes=frozenset(SCOPES_OF_ROLE[role]),
            token_expires_at=float(claims["exp"]) + LEEWAY_S,
        )


def _has_usable_subject(claims: Mapping[str, Any]) -> bool:
    """Whether the subject is a text, and not empty.

    Raises:
        UnicodeEncodeError: If the text has no UTF-8 form, because it contains an unpaired surrogate.
    """
    subject = claims["sub"]
    return isinstance(subject, str) and bool(subject.encode())


def _has_claim(claims: Mapping[str, Any], required: str) -> bool:
    """Whether a token has the claim `required`, given as `NAME=VALUE`; if the claim is a list, it must contain VALUE.

    False if `required` is empty.
    """
    if not required:
        return False
    name, _, value = required.partition("=")
    claim = claims.get(name)
    if isinstance(claim, list):
        return value in claim
    return bool(claim == value)
