"""The command line `masksmith`; needs the extra `cli`."""

from __future__ import annotations

import sys

EXTRA_MODULES = frozenset({"typer", "rich", "click"})


def main() -> None:
    """Run the command line; the entry point of the console script."""
    try:
        from .app import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA_MODULES:
            raise
        print(f"masksmith: the command line needs {error.name}: pip install 'masksmith[cli]'", file=sys.stderr)
        sys.exit(2)
    sys.exit(run())
