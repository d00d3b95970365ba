"""Logging to standard error as text or JSON, with context fields such as request, job, shard and key.

Each event is one line; in text, the lines of a traceback follow, indented.
"""

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
    """Add fields to every line that is logged in the block; yield all fields, those of outer contexts included.

    Fields that are None are left out of lines. All fields belong to the running thread or task (`contextvars`): a
    `threading.Thread` that the block starts has no fields.
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
    """Value of a field of the innermost `context`; None without such a field, and outside of a context."""
    return (_context_fields.get() or {}).get(name)


def configure(level: str, log_format: LogFormat) -> None:
    """Make the root logger write to standard error; does nothing if this logger has a handler already."""
    handler = logging.StreamHandler()
    handler.addFilter(_add_context)
    handler.setFormatter(_json_formatter() if log_format == "json" else _TextFormatter(TEXT_FORMAT))
    logging.basicConfig(level=level, handlers=[handler])


def _add_context(record: logging.LogRecord) -> bool:
    """Add the context's fields to a record, as a filter that rejects none."""
    record.context_fields = dict(_context_fields.get() or {})
    return True


class _TextFormatter(logging.Formatter):
    """Appends fields to the message, as `name=value`: those of the context, then those of the call's `extra["fields"]`.

    A field of the call replaces a field of the context that has the same name.

    Message, fields and traceback are made safe to show, as `safe_line` does.
    """

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
    """A text as one line, without credentials in URLs; characters that are not printable are escaped."""
    return printable(without_credentials(text))


def _safe_lines(text: str) -> str:
    # Indented, so that no line of a traceback can be mistaken for a line of the log.
    return "\n".join(f"  {safe_line(line)}" for line in text.splitlines())


def _with_message(record: logging.LogRecord, message: str) -> logging.LogRecord:
    """Return a copy of a record with another message; the traceback of the copy is formatted anew."""
    changed = logging.makeLogRecord(record.__dict__)
    # Another handler may have stored the text of the traceback in the record, without making it safe.
    changed.msg, changed.args, changed.exc_text = message, (), None
    return changed


def _json_formatter() -> logging.Formatter:
    """Return a formatter that writes JSON; pythonjsonlogger is imported only here, because text logs do not need it."""
    from pythonjsonlogger.core import RESERVED_ATTRS
    from pythonjsonlogger.json import JsonFormatter

    class Formatter(JsonFormatter):
        """Adds the fields that `_TextFormatter` appends, as members; removes credentials from all string members."""

        def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
            super().add_fields(log_data, record, message_dict)
            fields = log_data.pop("context_fields", {}) | log_data.pop("fields", {})
            log_data.update({name: value for name, value in fields.items() if value is not None})
            for name, value in log_data.items():
                if isinstance(value, str):
                    log_data[name] = without_credentials(value)

    names = {"levelname": "level", "name": "logger"}
    # uvicorn adds a copy of its messages with terminal colours, which is left out.
    reserved = [*RESERVED_ATTRS, "color_message"]
    return Formatter(
        "%(levelname)s %(name)s %(message)s", rename_fields=names, timestamp="time", reserved_attrs=reserved
    )
