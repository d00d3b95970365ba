"""Loads and runs Lua scripts, which Redis executes atomically.

The `lua` folder of a package has one file per script, and files whose names begin with `_`, which its scripts share.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import redis

GROWING = frozenset({"create", "link", "add_event", "begin_session"})
"""Scripts without the flag `allow-oom`: while the memory of Redis is full, they fail at a command that needs memory.

All other scripts have the flag, and run even then: they read, free memory, or write only a little.
"""


@cache
def load(package: str) -> Mapping[str, str]:
    """Return the text of each script of a package, by the script's name.

    A text is the line with the script's flags, then all shared files in the order of their names, then the script.
    """
    paths = [path for path in (files(package) / "lua").iterdir() if path.name.endswith(".lua")]
    texts = {path.name.removesuffix(".lua"): path.read_text("utf-8") for path in paths}
    shared = "\n".join(texts.pop(name) for name in sorted(texts) if name.startswith("_"))
    return {name: _flags(name) + shared + text for name, text in texts.items()}


def _flags(name: str) -> str:
    """Return the line with a script's flags; empty if it has none."""
    return "" if name in GROWING else "#!lua flags=allow-oom\n"


class Scripts:
    """The scripts of a package on a Redis server.

    Args:
        client: Redis client, with `decode_responses`.
        package: Name of the package.
    """

    def __init__(self, client: redis.Redis, package: str) -> None:
        self._scripts = {name: client.register_script(text) for name, text in load(package).items()}

    def run(self, name: str, *args: str | float, keys: tuple[str, ...] = ()) -> Any:
        """Run a script atomically and return its reply."""
        return self._scripts[name](keys=keys, args=args)
