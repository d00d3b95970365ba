"""Logging to standard error, one line per event, as text or JSON, with context fields (request, job, key)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from masksmith_wire.text import printable, without_credentials

LogFormat = Literal["text", "json"]
TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_context_fields: ContextVar[dict[str, Any] | None] = ContextVar("context_fields", default=None)


@contextmanager
def context(**fields: Any) -> Iterator[dict[str, Any]]:
    """Add fields to every line that is logged in the block; yields all fields.

    They belong to the running thread or task (`contextvars`): a `threading.Thread` that the block starts has no fields.
    """
    merged = {**(_context_fields.get() or {}), **fields}
    token = _context_fields.set(merged)
    try:
        yield merged
    finally:
        _context_fields.reset(token)


def add_fields(**fields: Any) -> None:
    """Add fields to the innermost `context`; outside of one, this does nothing."""
    current = _context_fields.get()
    if current is not None:
        current.update(fields)


def get_field(name: str) -> Any:
    """Value of a field of the innermost `context`, or None."""
    return (_context_fields.get() or {}).get(name)


def configure(level: str, log_format: LogFormat) -> None:
    """Configure the root logger to write to standard error."""
    handler = logging.StreamHandler()
    handler.addFilter(_add_context)
    handler.setFormatter(_json_formatter() if log_format == "json" else _TextFormatter(TEXT_FORMAT))
    logging.basicConfig(level=level, handlers=[handler])


def _add_context(record: logging.LogRecord) -> bool:
    record.context_fields = dict(_context_fields.get() or {})
    return True


class _TextFormatter(logging.Formatter):
    """Appends fields to the message, as `name=value`: those of the context, and `extra={"fields": ...}` of the call."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "context_fields", {}) | getattr(record, "fields", {})
        # A traceback follows the message, so the fields are appended to the message itself.
        pairs = "".join(f" {name}={value}" for name, value in fields.items() if value is not None)
        return super().format(_with_message(record, safe_line(record.getMessage() + pairs)))

    def formatException(self, ei: Any) -> str:
        return _safe_lines(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        return _safe_lines(super().formatStack(stack_info))


def safe_line(text: str) -> str:
    """A text as one line without credentials and without control characters."""
    return printable(without_credentials(text))


def _safe_lines(text: str) -> str:
    # Indented, so that no line of a traceback can be mistaken for a line of the log.
    return "\n".join(f"  {safe_line(line)}" for line in text.splitlines())


def _with_message(record: logging.LogRecord, message: str) -> logging.LogRecord:
    changed = logging.makeLogRecord(record.__dict__)
    # The base class keeps the text of a traceback in the record, for other handlers.
    changed.msg, changed.args, changed.exc_text = message, (), None
    return changed


def _json_formatter() -> logging.Formatter:
    from pythonjsonlogger.core import RESERVED_ATTRS
    from pythonjsonlogger.json import JsonFormatter

    class Formatter(JsonFormatter):
        """Adds the same fields as members of the JSON object."""

        def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
            super().add_fields(log_data, record, message_dict)
            fields = log_data.pop("context_fields", {}) | log_data.pop("fields", {})
            log_data.update({name: value for name, value in fields.items() if value is not None})
            for name, value in log_data.items():
                if isinstance(value, str):
                    log_data[name] = without_credentials(value)

    names = {"levelname": "level", "name": "logger"}
    # uvicorn adds a copy of its messages with terminal colours.
    reserved = [*RESERVED_ATTRS, "color_message"]
    return Formatter(
        "%(levelname)s %(name)s %(message)s", rename_fields=names, timestamp="time", reserved_attrs=reserved
    )
