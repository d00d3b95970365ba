"""Logs: one line an event on standard error, as text or JSON, with the request, job and key that it is about."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

LogFormat = Literal["text", "json"]
TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_subject: ContextVar[dict[str, Any] | None] = ContextVar("subject", default=None)


@contextmanager
def about(**fields: Any) -> Iterator[dict[str, Any]]:
    """Add fields to every line logged meanwhile, also in threads started from here; gives them."""
    subject = {**(_subject.get() or {}), **fields}
    token = _subject.set(subject)
    try:
        yield subject
    finally:
        _subject.reset(token)


def note(**fields: Any) -> None:
    """Add fields to the innermost `about`; without one this does nothing."""
    subject = _subject.get()
    if subject is not None:
        subject.update(fields)


def noted(name: str) -> Any:
    """Give a field of the innermost `about`, or None."""
    return (_subject.get() or {}).get(name)


def configure(level: str, form: LogFormat) -> None:
    """Send this process's log to standard error."""
    handler = logging.StreamHandler()
    handler.addFilter(_add_subject)
    handler.setFormatter(_json_formatter() if form == "json" else _TextFormatter(TEXT))
    logging.basicConfig(level=level, handlers=[handler])


def _add_subject(record: logging.LogRecord) -> bool:
    record.subject = dict(_subject.get() or {})
    return True


class _TextFormatter(logging.Formatter):
    """Puts the fields behind the message, as `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a line."""
        fields = getattr(record, "subject", {}) | getattr(record, "fields", {})
        # A traceback follows the line, so the fields belong into the message.
        pairs = "".join(f" {name}={value}" for name, value in fields.items() if value is not None)
        return super().format(record) if not pairs else super().format(_with_message(record, pairs))


def _with_message(record: logging.LogRecord, suffix: str) -> logging.LogRecord:
    changed = logging.makeLogRecord(record.__dict__)
    changed.msg, changed.args = record.getMessage() + suffix, ()
    return changed


def _json_formatter() -> logging.Formatter:
    from pythonjsonlogger.core import RESERVED_ATTRS
    from pythonjsonlogger.json import JsonFormatter

    class Formatter(JsonFormatter):
        """Puts the fields beside the message."""

        def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
            """Fill a line in."""
            super().add_fields(log_data, record, message_dict)
            fields = log_data.pop("subject", {}) | log_data.pop("fields", {})
            log_data.update({name: value for name, value in fields.items() if value is not None})

    names = {"levelname": "level", "name": "logger"}
    # uvicorn repeats its messages in colours.
    reserved = [*RESERVED_ATTRS, "color_message"]
    return Formatter(
        "%(levelname)s %(name)s %(message)s", rename_fields=names, timestamp="time", reserved_attrs=reserved
    )
