"""Completes the OpenAPI document: problem documents for errors, bodies of bytes, and a second success status."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from masksmith_wire.errors import PROBLEM_MEDIA_TYPE, ProblemDocument

_PROBLEM = {
    "description": "A problem document",
    "content": {PROBLEM_MEDIA_TYPE: {"schema": ProblemDocument.model_json_schema()}},
}
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_BYTES_REQUESTS = {("/v1/tensors", "post"), ("/v1/tensors/{digest}", "put"), ("/v1/masks", "post")}
"""Routes whose request body is bytes."""
_USUAL_STATUS = {
    ("/v1/tensors", "post"): "201",
    ("/v1/tensors/{digest}", "put"): "201",
    ("/v1/masks", "post"): "202",
    ("/v1/outputs", "post"): "202",
    ("/v1/jobs", "post"): "202",
}
"""Usual status of routes that also answer 200 with the same document: if the upload existed already, or the job ended
while the request waited for it (`Prefer: wait`)."""
_BYTES_RESPONSES = {(f"/v1/jobs/{{job}}/{file}", "get") for file in ("masks", "weights", "pruned", "window", "profile")}
"""Routes whose response body is bytes."""


def complete_openapi(app: FastAPI) -> None:
    """Complete the application's OpenAPI document when it is generated for the first time."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            for path, methods in document["paths"].items():
                for method, operation in methods.items():
                    _complete(path, method, operation)
        return generate()  # the same dict, which FastAPI caches and which was completed in place

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    responses["default"] = _PROBLEM
    if (path, method) in _BYTES_REQUESTS:
        operation["requestBody"] = {"required": True, "content": _BYTES}
    if (path, method) in _USUAL_STATUS:
        responses["200"] = responses[_USUAL_STATUS[path, method]]
    if (path, method) in _BYTES_RESPONSES:
        responses["200"]["content"] = _BYTES
