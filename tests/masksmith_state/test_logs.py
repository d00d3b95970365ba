"""A log entry is one line, without control characters and without credentials."""

import json
import logging

import pytest

from masksmith_state.telemetry import logs

SECRETS = [
    "broker unavailable: Error connecting to redis://:SECRET@host:6379/0",
    "MASKSMITH_OTLP_URL http://u:SECRET@collector:4318",
    "unix:///run/v.sock?password=SECRET",
    "s3://key:SECRET@bucket/prefix",
]


@pytest.fixture(params=["text", "json"])
def logged(request):
    """Log as a service or worker does; gives what is written."""
    formatter = logs._json_formatter() if request.param == "json" else logs._TextFormatter(logs.TEXT_FORMAT)

    def logged(message, *args, fields=None, error=None):
        record = logging.LogRecord("x", logging.INFO, __file__, 1, message, args, error and (type(error), error, None))
        record.context_fields, record.fields = {}, fields or {}
        return formatter.format(record)

    return logged


@pytest.mark.parametrize("secret", SECRETS)
def test_no_credentials_are_logged(logged, secret):
    assert "SECRET" not in logged("%s", secret)
    assert "SECRET" not in logged("x", fields={"reason": secret})
    text = logged("it failed", error=RuntimeError(secret))
    assert "SECRET" not in text
    assert "RuntimeError" in text


def test_a_name_forges_no_line_and_controls_no_terminal(logged):
    name = "w\x1b]0;owned\x07\n2026-01-01 INFO audit: forged \u202e\x9b"
    for text in (logged("tensor %s", name), logged("x", fields={"tensor": name})):
        assert text.isprintable()
        assert "forged" in text
    lines = logged("it failed", error=ValueError(name)).split("\n")
    assert all(line.isprintable() for line in lines)
    assert all(line.startswith("  ") for line in lines[1:])


def test_the_record_itself_stays_for_other_handlers(logged):
    error = ValueError("redis://:SECRET@host")
    record = logging.LogRecord("x", logging.INFO, __file__, 1, "a\nb", (), (ValueError, error, None))
    logs._TextFormatter(logs.TEXT_FORMAT).format(record)
    assert record.getMessage() == "a\nb"


def test_json_is_one_object_a_line(logged):
    text = logged("a\nb")
    if text.startswith("{"):
        assert json.loads(text)["message"] == "a\nb"
    assert "\n" not in text
