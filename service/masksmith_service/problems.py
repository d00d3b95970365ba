"""Converts errors to responses: RFC 9457 problem documents; outside `/v1/`, HTML pages for browsers."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from masksmith_state.telemetry import logs
from masksmith_wire.errors import PROBLEM_MEDIA_TYPE, Code, ProblemDocument
from masksmith_wire.validation import reason as reason_of

from .errors import DOMAIN_ERRORS, RequestError, translate
from .pages.rendering import render

log = logging.getLogger(__name__)

_HTTP_CODES = {404: Code.NOT_FOUND, 405: Code.METHOD_NOT_ALLOWED, 413: Code.BODY_TOO_LARGE}
"""Error code by the status of an `HTTPException`; other statuses have `Code.INVALID_DOCUMENT`."""
_MAX_ERRORS = 20
"""Maximum number of errors of one request that a problem document lists."""


def install(app: FastAPI) -> None:
    """Register the handler of expected errors; `AccessLogMiddleware` responds to all others with `respond_to_bug`."""
    for error_type in (RequestError, RequestValidationError, HTTPException, *DOMAIN_ERRORS):
        app.add_exception_handler(error_type, _handle)


async def _handle(request: Request, error: Exception) -> Response:
    return respond(request, error)


def respond(request: Request, error: Exception) -> Response:
    """Make the response to an error of one of the registered types."""
    request_error, headers = _as_request_error(request, error), dict[str, str]()
    if isinstance(error, HTTPException):
        headers |= error.headers or {}
    if request_error.retry_after_s is not None:
        headers["Retry-After"] = str(request_error.retry_after_s)
    if request_error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _render(request, request_error.problem(request.url.path), headers)


def _as_request_error(request: Request, error: Exception) -> RequestError:
    match error:
        case RequestError():
            return error
        case RequestValidationError():
            return _from_validation_error(error)
        case HTTPException():
            code = _HTTP_CODES.get(error.status_code, Code.INVALID_DOCUMENT)
            detail = f"{request.method} {request.url.path}: {error.detail}"
            if isinstance(error.__cause__, ValueError):  # Raised by the parser of documents; FastAPI hides its message.
                detail += f": {error.__cause__}"
            return RequestError(code, detail, status=error.status_code)
    return translate(error)


def _render(request: Request, problem: ProblemDocument, headers: dict[str, str]) -> Response:
    request_id = logs.get_field("request")
    if request_id is not None:
        problem = problem.model_copy(update={"request_id": request_id})
    if "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/v1/"):
        page = render(request, "login.html" if problem.status == 401 else "error.html", problem.status, problem=problem)
        page.headers.update(headers)
        return page
    content = problem.model_dump(mode="json", exclude_none=True)
    return JSONResponse(content, problem.status, headers, media_type=PROBLEM_MEDIA_TYPE)


def _from_validation_error(error: RequestValidationError) -> RequestError:
    errors = error.errors()[:_MAX_ERRORS]
    entries = [{"at": _location(entry), "message": _message(entry)} for entry in errors]
    # FastAPI passes the body on as bytes if its content type is not JSON.
    if entries[0]["at"] == "body" and isinstance(error.body, bytes) and error.body:
        entries[0]["message"] = "the document was not read; send it with the header 'Content-Type: application/json'"
    detail = f"{entries[0]['at']}: {entries[0]['message']}"
    status, code = None, Code.INVALID_DOCUMENT
    if errors[0]["type"] == "json_invalid":
        status = 400
    elif errors[0]["type"] == "literal_error" and errors[0]["loc"][-1] == "solver":
        code = Code.UNKNOWN_SOLVER
    return RequestError(code, detail, status=status, errors=entries)


def _message(error: dict[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return f"{reason_of(error)}: {error['ctx']['error']}"
    return reason_of(error) + _value_text(error)


def _location(error: dict[str, Any]) -> str:
    # For a job document pydantic inserts the kind of the job, which is not a member of the document, at index 1.
    parts = [part for index, part in enumerate(error["loc"]) if index != 1 or part not in ("masks", "benchmark")]
    # A member's name may have unpaired surrogates, which UTF-8 cannot encode.
    return ".".join(str(part)[:100] for part in parts).encode(errors="backslashreplace").decode()


def _value_text(error: dict[str, Any]) -> str:
    """Text that states the invalid value, if it is a text, a number or a bool; else an empty text."""
    value = error.get("input")
    return f", got {value!r:.80}" if isinstance(value, (str, int, float)) else ""


def respond_to_bug(request: Request, error: BaseException) -> Response:
    """Log an unexpected error, and make the response to it."""
    log.exception("unexpected error", exc_info=error)
    return respond(request, RequestError(Code.INTERNAL, "an unexpected error; the service's log has the details"))
