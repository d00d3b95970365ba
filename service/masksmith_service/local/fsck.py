"""The command `masksmith fsck`: replaces its process by `python -m masksmith_state.fsck`, which checks every blob."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from . import settings
from .options import DataOption, JsonOption, StoreOption


def fsck(
    repair: Annotated[bool, typer.Option("--repair", help="Set damaged blobs aside, and write lost digests.")] = False,
    data: DataOption = None,
    store_url: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every blob of a store against its digests, also of a store in use; exit code 1 if a blob is damaged."""
    store = settings.store_location(store_url, data)
    command = [sys.executable, "-P", "-m", "masksmith_state.fsck"]
    command += [option for option, is_set in (("--repair", repair), ("--json", as_json)) if is_set]
    sys.stdout.flush()
    os.execve(command[0], command, settings.child_environment({"MASKSMITH_STORE_URL": store}))
