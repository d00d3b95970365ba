"""HTTP routes that create, list and revoke keys, for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field

from masksmith_service.errors import RequestError
from masksmith_service.resources import StateDep
from masksmith_state.keys import KeyInfo, Keys, Quotas, Role
from masksmith_wire.errors import Code
from masksmith_wire.payload_limits import StrictModel

from .principal import AdminDep

router = APIRouter(prefix="/v1/keys", tags=["keys"])


class KeyRequest(StrictModel, Quotas):
    """Name, role and quotas of a new key."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\w .@+-]+$")]
    role: Role = Role.USER


class NewKey(KeyInfo):
    """A key with its token, which is returned only once."""

    token: str


async def _keys(state: StateDep, principal: AdminDep) -> Keys:
    return Keys(state.records.redis)


KeysDep = Annotated[Keys, Depends(_keys)]


@router.get("")
def list_keys(keys: KeysDep) -> list[KeyInfo]:
    """List all keys, oldest first, without their tokens."""
    return keys.all()


@router.post("", status_code=201)
def create_key(document: KeyRequest, keys: KeysDep, principal: AdminDep) -> NewKey:
    """Create a key. The first one is created by `masksmith keys create`; once it exists, all requests need a key."""
    if not principal.key:
        detail = "keys are created over HTTP only with a key; create the first one with 'masksmith keys create'"
        raise RequestError(Code.FORBIDDEN, detail)
    quotas = Quotas.model_validate(document.model_dump(include=set(Quotas.model_fields)))
    info, token = keys.create(document.name, document.role, quotas)
    return NewKey(**info.model_dump(), token=token)


@router.delete("/{key}", status_code=204)
def revoke_key(key: str, keys: KeysDep) -> None:
    """Revoke a key: requests with its token are rejected from now on."""
    if not keys.revoke(key):
        raise RequestError(Code.KEY_NOT_FOUND, f"there is no key {key[:80]!r}; GET /v1/keys lists them")
