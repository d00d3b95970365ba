"""The OpenAPI document: statuses and bodies that FastAPI cannot derive from the routes."""

import pytest

from masksmith_service.app import create_app
from masksmith_service.settings import Settings


@pytest.fixture(scope="module")
def paths():
    return create_app(Settings()).openapi()["paths"]


def test_each_route_that_accepts_a_job_may_answer_with_the_ended_job(paths):
    accepting = {path: methods["post"]["responses"] for path, methods in paths.items() if "post" in methods}
    accepting = {path: responses for path, responses in accepting.items() if "202" in responses}
    assert {"/v1/jobs", "/v1/masks", "/v1/outputs"} <= accepting.keys()
    for responses in accepting.values():
        assert responses["200"] == responses["202"]


@pytest.mark.parametrize("file", ["masks", "weights", "pruned", "window", "profile"])
def test_files_are_described_as_bytes(paths, file):
    content = paths[f"/v1/jobs/{{job}}/{file}"]["get"]["responses"]["200"]["content"]
    assert content == {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


CONSTRAINTS = {"minLength", "maxLength", "pattern", "enum", "format", "const"}


def strings_of(schema, components):
    """Yield the schemas of all strings in a document, and their keywords; `components` loses those that were seen."""
    if isinstance(schema, list):
        for each in schema:
            yield from strings_of(each, components)
    elif isinstance(schema, dict):
        if schema.get("type") == "string":
            yield schema
        name = str(schema.get("$ref", "")).rpartition("/")[2]
        for each in (components.pop(name, None), *schema.values()):
            yield from strings_of(each, components)


def test_each_text_of_a_document_has_a_constraint():
    """Without one, pydantic accepts what is no Unicode, such as half a surrogate pair, which cannot be encoded."""
    api = create_app(Settings()).openapi()
    methods = [method for path, methods in api["paths"].items() if path != "/v1/session" for method in methods.values()]
    strings = list(strings_of([method.get("requestBody") for method in methods], api["components"]["schemas"]))
    assert len(strings) > 20
    assert [schema for schema in strings if not CONSTRAINTS & set(schema)] == []
