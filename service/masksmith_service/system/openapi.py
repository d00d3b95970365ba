"""Completes the OpenAPI document: problem documents for errors, and raw request and response bodies."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from masksmith_wire.errors import PROBLEM_MEDIA_TYPE, ProblemDocument

_PROBLEM = {
    "description": "A problem document",
    "content": {PROBLEM_MEDIA_TYPE: {"schema": ProblemDocument.model_json_schema()}},
}
_RAW = {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
_UPLOADS = {("/v1/tensors", "post"), ("/v1/tensors/{digest}", "put"), ("/v1/masks", "post")}
_STATUS_IF_NEW = {
    ("/v1/tensors", "post"): "201",
    ("/v1/tensors/{digest}", "put"): "201",
    ("/v1/masks", "post"): "202",
    ("/v1/jobs", "post"): "202",
}
_BINARY = {(f"/v1/jobs/{{job}}/{what}", "get") for what in ("masks", "weights", "pruned")}


def describe(app: FastAPI) -> None:
    """Complete the application's OpenAPI document when it is generated for the first time."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            for path, methods in document["paths"].items():
                for method, operation in methods.items():
                    _complete(path, method, operation)
        return generate()

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    responses["default"] = _PROBLEM
    if (path, method) in _UPLOADS:
        operation["requestBody"] = _RAW
    if (path, method) in _STATUS_IF_NEW:
        responses["200"] = responses[_STATUS_IF_NEW[path, method]]
    if (path, method) in _BINARY:
        responses["200"]["content"] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
