"""HTTP routes of browser sessions.

A session authenticates requests by a cookie, because an `EventSource` cannot send a bearer token.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from redis.asyncio import Redis

from masksmith_service.errors import RequestError
from masksmith_service.resources import StateDep
from masksmith_state import scripts
from masksmith_state.keys import MAX_SESSIONS, Role, hash_token, redis_key_of_session, redis_key_of_session_list
from masksmith_state.telemetry import logs
from masksmith_wire.errors import Code

from .principal import COOKIE_NAME, PrincipalDep, find_key, principal_of, session_cookie
from .rates import check_rate

router = APIRouter(prefix="/v1/session", tags=["keys"])


class Login(BaseModel):
    """A key's token, as JSON or as a form field."""

    token: Annotated[str, Field(min_length=1, max_length=200)]


class Session(BaseModel):
    """The principal of a request; `key` is its id, or null for a request that has no key and needs none."""

    key: str | None
    name: str
    role: Role


_TOKEN_BODY = {"schema": {"type": "object", "required": ["token"], "properties": {"token": {"type": "string"}}}}


@router.post(
    "",
    responses={303: {"description": "Logged in by a form: redirect to the home page."}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": _TOKEN_BODY, "application/x-www-form-urlencoded": _TOKEN_BODY},
        }
    },
)
async def log_in(request: Request, response: Response, state: StateDep) -> Session:
    """Exchange a token for a session cookie; the response to a form redirects to the home page."""
    is_form = request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    token = _parse_token(await request.body(), is_form=is_form)
    key = await find_key(state.async_redis, token)
    if key is None:
        raise RequestError(Code.UNAUTHORIZED, "the key is unknown, was revoked or has expired")
    logs.add_fields(key=key.id)
    await check_rate(state.async_redis, principal_of(key, state.settings))
    session_token, seconds = secrets.token_urlsafe(32), int(state.settings.session_s)
    # The session is bound to the token, and also ends when the token becomes invalid by rotation, revocation or expiry.
    value = f"{key.id} {hash_token(token)}"
    arguments = (redis_key_of_session(session_token), redis_key_of_session_list(key.id), value, seconds, MAX_SESSIONS)
    await state.async_redis.eval(scripts.load(__package__)["begin_session"], 0, *arguments)
    if is_form:
        response.status_code = 303
        response.headers["Location"] = "../"
    response.set_cookie(
        COOKIE_NAME,
        session_token,
        max_age=seconds,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return Session(key=key.id, name=key.name, role=key.role)


@router.get("")
async def who_am_i(principal: PrincipalDep) -> Session:
    """Return the principal of this request."""
    return Session(key=principal.key or None, name=principal.name, role=principal.role)


@router.delete("", status_code=204)
async def log_out(request: Request, response: Response, state: StateDep) -> None:
    """End the browser's session, if there is one."""
    session_token = session_cookie(request)
    if session_token:
        await _end_session(state.async_redis, redis_key_of_session(session_token))
    response.delete_cookie(COOKIE_NAME, httponly=True, samesite="strict")


async def _end_session(client: Redis, redis_key: str) -> None:
    """Delete the session at a Redis key, and remove it from the list of sessions of its API key.

    Otherwise it would count towards `MAX_SESSIONS`, and a later login could end another session.
    """
    value: Any = await client.get(redis_key)
    await client.delete(redis_key)
    key_id = (value or "").partition(" ")[0]
    if key_id:
        await client.zrem(redis_key_of_session_list(key_id), redis_key)


def _parse_token(body: bytes, *, is_form: bool) -> str:
    try:
        if is_form:
            fields = parse_qs(body.decode(), max_num_fields=20)
            return Login(token=fields.get("token", [""])[0].strip()).token
        return Login.model_validate_json(body).token
    except ValueError:
        # The body may contain a token, so the response must not repeat it.
        detail = 'the body is neither a JSON document {"token": "..."} nor a form with the field token'
        raise RequestError(Code.INVALID_DOCUMENT, detail) from None
