"""The commands `masksmith backup` and `masksmith restore`, which run `masksmith_state.backup` in another process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from . import settings
from .options import DataOption, JsonOption, RedisOption, StoreOption, expand_home
from .redis_server import installation_redis

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Directory of the backup.", callback=expand_home)]


def back_up(
    folder: FolderArgument,
    data: DataOption = None,
    redis_url: RedisOption = None,
    store_url: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write records and blobs of an installation into an empty directory, also while the installation runs."""
    _run("save", folder, data, redis_url, store_url, as_json=as_json)


def restore(
    folder: FolderArgument,
    data: DataOption = None,
    redis_url: RedisOption = None,
    store_url: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Restore a backup into an empty installation; an installation with data is refused."""
    _run("restore", folder, data, redis_url, store_url, as_json=as_json)


def _run(
    subcommand: str, folder: Path, data: Path | None, redis_url: str | None, store_url: str | None, *, as_json: bool
) -> None:
    store = settings.store_location(store_url, data)
    arguments = [sys.executable, "-P", "-m", "masksmith_state.backup", subcommand, str(folder.absolute())]
    sys.stdout.flush()
    with installation_redis(data, redis_url, create=subcommand == "restore") as url:
        environment = settings.child_environment({"MASKSMITH_REDIS_URL": url, "MASKSMITH_STORE_URL": store})
        result = subprocess.run([*arguments, *["--json"] * as_json], env=environment, check=False)
    raise typer.Exit(result.returncode)
