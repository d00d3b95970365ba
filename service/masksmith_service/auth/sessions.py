"""Sessions of browsers, which cannot send a bearer token with an event stream: a cookie stands for the key."""

from __future__ import annotations

import secrets
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Cookie, Request, Response
from pydantic import BaseModel, Field, ValidationError

from masksmith_service.errors import RequestError
from masksmith_service.resources import StateDep
from masksmith_state.keys import Role, session_key
from masksmith_state.telemetry import logs
from masksmith_wire.errors import Code

from .principal import COOKIE, CallerDep, find_key

router = APIRouter(prefix="/v1/session", tags=["keys"])


class Login(BaseModel):
    """A key's token, as JSON or as the one field of a form."""

    token: Annotated[str, Field(min_length=1, max_length=200)]


class Session(BaseModel):
    """Whose key a request carries; `key` is null where none is needed."""

    key: str | None
    name: str
    role: Role


_FORM = {"schema": {"type": "object", "required": ["token"], "properties": {"token": {"type": "string"}}}}


@router.post(
    "",
    responses={303: {"description": "Logged in by a form: on to the page."}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": _FORM, "application/x-www-form-urlencoded": _FORM},
        }
    },
)
async def log_in(request: Request, response: Response, state: StateDep) -> Session:
    """Take a token and give a cookie for it; a form is sent on to `/`."""
    is_form = request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    key = await find_key(state.events, _token(await request.body(), is_form=is_form))
    if key is None:
        raise RequestError(Code.UNAUTHORIZED, "the key is unknown or was revoked")
    logs.add_fields(key=key.id)
    cookie = secrets.token_urlsafe(32)
    seconds = int(state.settings.session_s)
    await state.events.set(session_key(cookie), key.id, ex=seconds)
    if is_form:
        response.status_code = 303
        response.headers["Location"] = "/"
    response.set_cookie(
        COOKIE, cookie, max_age=seconds, httponly=True, samesite="strict", secure=request.url.scheme == "https"
    )
    return Session(key=key.id, name=key.name, role=key.role)


@router.get("")
async def who_am_i(caller: CallerDep) -> Session:
    """Tell whose key this request carries."""
    return Session(key=caller.key or None, name=caller.name, role=caller.role)


@router.delete("", status_code=204)
async def log_out(
    response: Response, state: StateDep, cookie: Annotated[str | None, Cookie(alias=COOKIE, max_length=200)] = None
) -> None:
    """End a browser's session; without one this changes nothing."""
    if cookie:
        await state.events.delete(session_key(cookie))
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")


def _token(body: bytes, *, is_form: bool) -> str:
    try:
        if is_form:
            fields = parse_qs(body.decode(), max_num_fields=20)
            return Login(token=fields.get("token", [""])[0].strip()).token
        return Login.model_validate_json(body).token
    except (ValidationError, ValueError):
        # What was sent may hold a token: no answer repeats it.
        detail = 'the body is no JSON document {"token": "..."} and no form with the field token'
        raise RequestError(Code.INVALID_DOCUMENT, detail) from None
