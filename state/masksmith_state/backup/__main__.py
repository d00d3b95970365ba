"""Backs up or restores an installation: `python -m masksmith_state.backup save|restore DIR [--json]`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import redis

from masksmith_state.blobs.store import BlobStore
from masksmith_state.decoding import DECODING
from masksmith_state.errors import InstallationError
from masksmith_state.installation import protect_files
from masksmith_state.settings import StateSettings, read_settings
from masksmith_wire.quantities import count_text, size_text
from masksmith_wire.text import printable, without_credentials

from .copies import back_up, restore


def main() -> int:
    """Run a command, with broker and store from the environment; return the exit code: 0, or 1 if it failed."""
    parser = argparse.ArgumentParser(prog="masksmith_state.backup")
    parser.add_argument("command", choices=["save", "restore"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true")
    options, settings = parser.parse_args(), read_settings(StateSettings)
    settings.configure_logging()
    protect_files()
    client = redis.Redis.from_url(settings.redis_url, **DECODING, socket_connect_timeout=3, socket_timeout=60)
    run, outcome = (back_up, "backed up") if options.command == "save" else (restore, "restored")
    try:
        store = BlobStore(settings.store_location, create=options.command == "restore")
        manifest = run(client, store, options.folder.absolute())
    except (redis.RedisError, InstallationError, OSError) as error:
        sys.stderr.write(printable(without_credentials(f"masksmith: {_error_text(error, options.folder)}")) + "\n")
        return 1
    finally:
        client.close()
    if options.json:
        sys.stdout.write(json.dumps(asdict(manifest)) + "\n")
    else:
        records, blobs = count_text(manifest.records), count_text(manifest.blobs)
        sys.stdout.write(f"{outcome}: {records} records, {blobs} blobs of {size_text(manifest.bytes)}\n")
    return 0


def _error_text(error: Exception, folder: Path) -> str:
    """Return the text of an error for the user; if an `OSError` names no file, the text names the backup's directory.

    The error of a full disk names no file.
    """
    if isinstance(error, OSError) and error.strerror is not None:
        return f"{error.filename or folder}: {error.strerror}"
    return str(error)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
