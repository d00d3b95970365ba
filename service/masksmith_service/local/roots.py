"""The roots of `masksmith up`: those of `MASKSMITH_ROOTS`, and those that its option `--root` adds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from masksmith_wire.json_text import parse_json
from masksmith_wire.locations import is_in_bucket

from . import settings
from .errors import UsageError
from .options import expand_home


def roots_variable(options: Sequence[str]) -> str | None:
    """Return the value of `MASKSMITH_ROOTS` with the roots of the options `--root` added; None without options.

    All API keys may read and write the roots of the options.

    Raises:
        UsageError: If an option is neither a directory nor an `s3://` prefix, or `MASKSMITH_ROOTS` is not a JSON list.
    """
    if not options:
        return None
    configured_roots = _parse(settings.roots_json())
    added_roots = [{"url": _url(text), "read": ["*"], "write": ["*"]} for text in options]
    return json.dumps([*configured_roots, *added_roots])


def root_urls(text: str | None) -> list[str]:
    """Return the URLs in a value of `MASKSMITH_ROOTS`; entries without a URL are left out; for None, the list is empty.

    Raises:
        UsageError: If the value is not a JSON list.
    """
    return [str(root["url"]) for root in _parse(text) if isinstance(root, dict) and "url" in root]


def _url(text: str) -> str:
    """Return the `s3://` prefix as it is, or the absolute path of the directory."""
    if is_in_bucket(text):
        return text
    path = expand_home(Path(text))
    if not path.is_dir():
        raise UsageError(f"--root {text!r}: there is no such directory")
    return str(path.resolve())


def _parse(text: str | None) -> list[object]:
    try:
        value = parse_json(text or "[]")
    except ValueError:
        value = None
    if not isinstance(value, list):
        raise UsageError(
            f'MASKSMITH_ROOTS is not a JSON list of objects such as {{"url": ..., "read": ["*"]}}: {text!r}'
        )
    return value
