"""HTTP routes that list, create, rotate and revoke keys, for admins."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import AfterValidator, AwareDatetime, Field

from masksmith_service.errors import RequestError
from masksmith_service.json_route import JsonRoute
from masksmith_service.resources import StateDep
from masksmith_state.keys import (
    DEFAULT_OVERLAP_S,
    MAX_OVERLAP_S,
    KeyInfo,
    Keys,
    Quotas,
    Role,
    Scope,
    Sharing,
)
from masksmith_wire.errors import Code
from masksmith_wire.key_bounds import MAX_REQUESTS_S, MAX_WEIGHT, MIN_REQUESTS_S, MIN_WEIGHT
from masksmith_wire.payload_limits import JSON_NUMBER, StrictModel

from .principal import AdminDep

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=JsonRoute)


def _check_future(moment: datetime) -> datetime:
    if moment <= datetime.now(UTC):
        raise ValueError("it is in the past, and the key would never be valid")
    return moment


class KeyRequest(StrictModel, Quotas, Sharing):
    """Name, role, scopes, expiry, quotas, weight and highest priority of a new key."""

    stored_bytes: Annotated[int, Field(ge=0), JSON_NUMBER] | None = None
    live_jobs: Annotated[int, Field(ge=0), JSON_NUMBER] | None = None
    weight: Annotated[float, Field(ge=MIN_WEIGHT, le=MAX_WEIGHT), JSON_NUMBER] = 1.0
    requests_s: Annotated[float, Field(ge=MIN_REQUESTS_S, le=MAX_REQUESTS_S), JSON_NUMBER] | None = None
    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\w .@+-]+$")]
    role: Role = Role.USER
    scopes: list[Scope] | None = None
    expires_at: Annotated[AwareDatetime, AfterValidator(_check_future)] | None = None


class RotateRequest(StrictModel):
    """Seconds for which the old token of a key stays valid after its rotation."""

    overlap_s: Annotated[float, Field(ge=0, le=MAX_OVERLAP_S), JSON_NUMBER] = DEFAULT_OVERLAP_S


class NewKey(KeyInfo):
    """A key with its new token; no later response contains the token."""

    token: str


async def _keys(state: StateDep, principal: AdminDep) -> Keys:
    """Return the keys; `AdminDep` rejects requests whose principal is not an admin."""
    return Keys(state.records.redis)


KeysDep = Annotated[Keys, Depends(_keys)]


@router.get("")
def list_keys(keys: KeysDep) -> list[KeyInfo]:
    """List all keys, revoked ones included, oldest first, without their tokens."""
    return keys.all()


@router.post("", status_code=201)
def create_key(document: KeyRequest, keys: KeysDep, principal: AdminDep) -> NewKey:
    """Create a key. The first one must be created with `masksmith keys create`; then all requests need a key."""
    if not principal.key:
        detail = "only a request with a key can create keys; create the first one with 'masksmith keys create'"
        raise RequestError(Code.FORBIDDEN, detail)
    quotas = Quotas.model_validate(document.model_dump(include=set(Quotas.model_fields)))
    sharing = Sharing.model_validate(document.model_dump(include=set(Sharing.model_fields)))
    try:
        info, token = keys.create(document.name, document.role, quotas, document.scopes, document.expires_at, sharing)
    except ValueError as error:
        raise RequestError(Code.INVALID_DOCUMENT, str(error)) from None
    return NewKey(**info.model_dump(), token=token)


@router.post("/{key}/rotate", status_code=201)
def rotate_key(key: str, document: RotateRequest, keys: KeysDep) -> NewKey:
    """Replace a key's token. The present one stays valid for `overlap_s`, any earlier one ends at once.

    The key keeps its jobs, uploads and quotas.
    """
    info_and_token = keys.rotate(key, document.overlap_s)
    if info_and_token is None:
        raise RequestError(Code.KEY_NOT_FOUND, f"there is no valid key {key[:80]!r}; GET /v1/keys lists them")
    info, token = info_and_token
    return NewKey(**info.model_dump(), token=token)


@router.delete("/{key}", status_code=204)
def revoke_key(key: str, keys: KeysDep) -> None:
    """Revoke a key: requests with its tokens are rejected from now on."""
    if not keys.revoke(key):
        raise RequestError(Code.KEY_NOT_FOUND, f"there is no key {key[:80]!r}; GET /v1/keys lists them")
