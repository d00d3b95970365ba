"""One answer to everything that goes wrong: an RFC 9457 problem document, or a page for those who asked for one."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from masksmith_state.telemetry import logs
from masksmith_wire.errors import PROBLEM_MEDIA_TYPE, Code, ProblemDocument

from .errors import DOMAIN_ERRORS, RequestError, translate
from .pages.rendering import render

log = logging.getLogger(__name__)

_HTTP_CODES = {404: Code.NOT_FOUND, 405: Code.METHOD_NOT_ALLOWED, 413: Code.BODY_TOO_LARGE}


def install(app: FastAPI) -> None:
    """Register the handlers."""
    for kind in (RequestError, RequestValidationError, HTTPException, *DOMAIN_ERRORS):
        app.add_exception_handler(kind, _respond_soon)


async def _respond_soon(request: Request, error: Exception) -> Response:
    return respond(request, error)


def respond(request: Request, error: Exception) -> Response:
    """Render an error as a problem document: one of those that `install` registers."""
    refusal, headers = _refusal(request, error), dict[str, str]()
    if isinstance(error, HTTPException):
        headers |= error.headers or {}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(refusal.retry_after_s)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _render(request, refusal.problem(request.url.path), headers)


def _refusal(request: Request, error: Exception) -> RequestError:
    match error:
        case RequestError():
            return error
        case RequestValidationError():
            return _invalid(error)
        case HTTPException():
            code = _HTTP_CODES.get(error.status_code, Code.INVALID_DOCUMENT)
            detail = f"{request.method} {request.url.path}: {error.detail}"
            return RequestError(code, detail, status=error.status_code)
    return translate(error)


def _render(request: Request, problem: ProblemDocument, headers: dict[str, str]) -> Response:
    request_id = logs.get_field("request")
    if request_id is not None:
        problem = problem.model_copy(update={"request_id": request_id})
    if "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/v1/"):
        page = render("login.html" if problem.status == 401 else "fault.html", problem.status, problem=problem)
        page.headers.update(headers)
        return page
    content = problem.model_dump(mode="json", exclude_none=True)
    return JSONResponse(content, problem.status, headers, media_type=PROBLEM_MEDIA_TYPE)


def _invalid(error: RequestValidationError) -> RequestError:
    found = error.errors()[:20]
    faults = [{"at": _place(fault), "message": fault["msg"] + _value(fault)} for fault in found]
    detail = f"{faults[0]['at']}: {faults[0]['message']}"
    status, code = None, Code.INVALID_DOCUMENT
    if found[0]["type"] == "json_invalid":
        status = 400
    elif found[0]["type"] == "literal_error" and found[0]["loc"][-1] == "solver":
        code = Code.UNKNOWN_SOLVER
    return RequestError(code, detail, status=status, errors=faults)


def _place(fault: dict[str, Any]) -> str:
    # A member's name may hold what no encoding can carry.
    # The kind of a job's document is no place in it.
    place = [part for at, part in enumerate(fault["loc"]) if at != 1 or part not in ("masks", "benchmark")]
    return ".".join(str(part)[:100] for part in place).encode(errors="backslashreplace").decode()


def _value(fault: dict[str, Any]) -> str:
    value = fault.get("input")
    return f", got {value!r:.80}" if isinstance(value, (str, int, float)) else ""


def bug(request: Request, error: Exception) -> Response:
    """Say that something happened which should not, and log what."""
    log.exception("unexpected error", exc_info=error)
    return respond(request, RequestError(Code.INTERNAL, "an unexpected error; the service's log has the details"))
