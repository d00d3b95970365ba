"""Whatever the OpenAPI document allows or forbids is sent, and every answer compared with what it promises."""

import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig

from masksmith_service.app import create_app
from masksmith_service.settings import Settings

# What fits the schema may still be no pattern, name no upload, or meet a job that is over.
REFUSALS = ["2xx", "303", "400", "401", "403", "404", "409", "422", "503"]
CONFIG = {"checks": {"positive_data_acceptance": {"expected-statuses": REFUSALS}}}
SCHEMA = schemathesis.openapi.from_dict(create_app(Settings()).openapi(), config=SchemathesisConfig.from_dict(CONFIG))
LONGEST_QUERY = 15_000
OPERATIONS = [result.ok() for result in SCHEMA.get_all_operations()]


def can_be_wrong(operation):
    """Whether an operation takes anything that a request could violate.

    Any text in a path is text, as in a cookie, and any bytes are a body of bytes.
    """
    parameters = operation.definition.raw.get("parameters", [])
    body = operation.definition.raw.get("requestBody", {}).get("content", {})
    return bool(body.keys() - {"application/octet-stream"}) or any(
        parameter["in"] in ("query", "header") or "maxLength" in parameter["schema"] for parameter in parameters
    )


def cases():
    for operation in OPERATIONS:
        for mode in GenerationMode:
            if mode is GenerationMode.POSITIVE or can_be_wrong(operation):
                for count, marks in [(5, ()), (200, pytest.mark.slow)]:
                    name = f"{operation.label}-{mode.value}-{count}"
                    yield pytest.param(operation, mode, count, id=name, marks=marks)


@pytest.mark.parametrize(("operation", "mode", "count"), list(cases()))
def test_answers_are_what_the_document_promises(target, operation, mode, count):
    # No worker is there, which is what /readyz is to say.
    excluded = [not_a_server_error] if operation.path == "/readyz" else []

    @settings(max_examples=count, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        # A request line of more than 64 KiB is refused by the HTTP parser, before there is anything to promise.
        assume(len(str(case.query)) < LONGEST_QUERY)
        case.call_and_validate(base_url=target.url, timeout=120, excluded_checks=excluded)

    check()
