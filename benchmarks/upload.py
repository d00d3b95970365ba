"""Measure the service's upload throughput and peak memory.

The service is compared with a minimal uvicorn application that streams the same bytes to disk, which is an upper bound
for a Python application that stores uploads. Rounds alternate between the two; the ratio is the median of the rounds'
ratios. Peak memory (VmHWM) is measured of a new service after uploads of one size, whose bodies are generated while
they are sent. The exit code is 0 if the service reaches `MIN_RATIO` of the speed of the minimal application, and its
memory does not depend on the size of uploads (by less than `MAX_GROWTH_MIB`).

    python benchmarks/upload.py --out docs/benchmarks/upload.md
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from blake3 import blake3
from measuring import commit

from masksmith_service.local import valkey

MIB = 2**20
PIECE = os.urandom(MIB)
MIN_RATIO, MAX_GROWTH_MIB = 0.7, 64

BARE = """
import os, sys, time, uvicorn
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    with open(os.path.join(sys.argv[2], str(time.time_ns())), "xb") as file:
        more = True
        while more:
            message = await receive()
            file.write(message.get("body", b""))
            more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 201, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
uvicorn.run(app, port=int(sys.argv[1]), http="httptools", loop="uvloop", lifespan="off", log_level="warning")
"""


@dataclass(frozen=True)
class Server:
    """A server under test.

    Attributes:
        port: The port that it listens on.
        pid: Its process.
        uploads: The folder of its uploads.
        token: A key of the service; empty for the minimal application.
    """

    port: int
    pid: int
    uploads: Path
    token: str = ""

    @property
    def peak_mib(self) -> float:
        """Peak resident memory so far."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


class Upload:
    """A safetensors file of `mebibytes`, generated while it is sent; files of different `number` differ."""

    def __init__(self, mebibytes: int, number: int) -> None:
        size = mebibytes * MIB
        header = {"w": {"dtype": "F32", "shape": [size // 4096, 1024], "data_offsets": [0, size]}}
        text = json.dumps({"__metadata__": {"number": f"{number:08d}"}} | header).encode()
        text += b" " * (-len(text) % 8)
        self._head = struct.pack("<Q", len(text)) + text
        self._piece_count = mebibytes
        self.bytes = len(self._head) + size
        hasher = blake3()
        for piece in self.pieces():
            hasher.update(piece)
        self.digest = hasher.hexdigest()

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes of the file."""
        yield self._head
        for _ in range(self._piece_count):
            yield PIECE

    def send(self, server: Server) -> float:
        """Send the file by PUT; returns the seconds until the answer."""
        request = (
            f"PUT /v1/tensors/{self.digest} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Authorization: Bearer {server.token}\r\nContent-Length: {self.bytes}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            started = time.perf_counter()
            connection.sendall(request.encode())
            for piece in self.pieces():
                connection.sendall(piece)
            answer = connection.recv(4096)
            seconds = time.perf_counter() - started
        if not answer.startswith(b"HTTP/1.1 201"):
            raise SystemExit(f"unexpected answer: {answer!r}")
        return seconds


@contextmanager
def process(
    command: list[str], port: int, uploads: Path, environment: dict[str, str] | None = None
) -> Iterator[Server]:
    """Run a server during the block; waits until it listens."""
    with subprocess.Popen(command, env=os.environ | (environment or {}), stderr=subprocess.DEVNULL) as running:
        try:
            while running.poll() is None:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.05)
            else:
                raise SystemExit(f"the server ended at its start, with exit code {running.returncode}")
            yield Server(port, running.pid, uploads)
        finally:
            running.send_signal(signal.SIGINT)


@contextmanager
def service(folder: Path) -> Iterator[Server]:
    """Run the service, in one process, with a store and a broker of its own."""
    port, own_folder = free_port(), Path(tempfile.mkdtemp(dir=folder))
    broker, store = own_folder / "valkey.sock", own_folder / "store"
    environment = {
        "MASKSMITH_PORT": str(port),
        "MASKSMITH_PROCESSES": "1",
        "MASKSMITH_STORE_URL": str(store),
        "MASKSMITH_REDIS_URL": valkey.url(broker),
    }
    command = valkey.command(valkey.find_binary(), own_folder, broker)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as running:
        try:
            with process([sys.executable, "-m", "masksmith_service"], port, store / "tensors", environment) as server:
                yield replace(server, token=create_key(environment))
        finally:
            running.terminate()


def create_key(environment: dict[str, str]) -> str:
    """Create a key of the service that has this environment; returns its token."""
    command = [Path(sys.executable).with_name("masksmith"), "keys", "create", "benchmark", "--json"]
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment).stdout
    return str(json.loads(output)["token"])


@contextmanager
def bare(folder: Path) -> Iterator[Server]:
    """Run the minimal application."""
    port, uploads = free_port(), folder / "bare"
    uploads.mkdir(exist_ok=True)
    with process([sys.executable, "-c", BARE, str(port), str(uploads)], port, uploads) as server:
        yield server


def free_port() -> int:
    """Find a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def measure_speed(folder: Path, mebibytes: int, rounds: int) -> list[tuple[float, float]]:
    """Return the seconds of each round, of (minimal application, service); the order alternates.

    A first round, which is not returned, warms both up.
    """
    seconds = []
    with bare(folder) as minimal, service(folder) as ours:
        for number in range(rounds + 1):
            upload = Upload(mebibytes, number)
            order = [minimal, ours] if number % 2 else [ours, minimal]
            took = {server.pid: upload.send(server) for server in order}
            seconds.append((took[minimal.pid], took[ours.pid]))
            clear(ours.uploads, minimal.uploads)
    return seconds[1:]


def measure_memory(folder: Path, mebibytes: int, count: int) -> tuple[float, float]:
    """Return the peak memory of a new service before and after `count` uploads, one after the other, in MiB."""
    with service(folder) as server:
        Upload(1, 0).send(server)
        before = server.peak_mib
        for number in range(count):
            Upload(mebibytes, number).send(server)
            clear(server.uploads)
        return before, server.peak_mib


def clear(*folders: Path) -> None:
    """Delete the files in these folders, and wait until everything is written to disk."""
    for folder in folders:
        shutil.rmtree(folder)
        folder.mkdir()
    os.sync()


def machine() -> str:
    """Name the machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    return (
        f"{model}, {len(os.sched_getaffinity(0))} cores, Linux {platform.release()}, Python {platform.python_version()}"
    )


def report(speed: dict[int, list[tuple[float, float]]], memory: dict[int, tuple[float, float]]) -> str:
    """Return the report as Markdown."""
    lines = [
        "# Uploads",
        "",
        "`python benchmarks/upload.py`: PUT of a safetensors file over loopback, header parsed, BLAKE3 verified,",
        "stored under its digest; against a bare uvicorn application that streams the same bytes into a file.",
        "",
        f"- machine: {machine()}",
        f"- commit: {commit()}, {time.strftime('%Y-%m-%d')}",
        "",
        "| upload | rounds | bare uvicorn | service | ratio (median; min to max) |",
        "|---|---|---|---|---|",
    ]
    for mebibytes, rounds in speed.items():
        ratios = [minimal_s / ours_s for minimal_s, ours_s in rounds]
        minimal, ours = (statistics.median(mebibytes / pair[side] for pair in rounds) for side in (0, 1))
        spread = f"{statistics.median(ratios):.0%}; {min(ratios):.0%} to {max(ratios):.0%}"
        lines.append(f"| {mebibytes} MiB | {len(rounds)} | {minimal:.0f} MiB/s | {ours:.0f} MiB/s | {spread} |")
    lines += ["", "| upload | peak memory of the service before | after |", "|---|---|---|"]
    lines += [f"| {size} MiB | {before:.0f} MiB | {after:.0f} MiB |" for size, (before, after) in memory.items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure and print the tables; returns the exit code."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--sizes", type=int, nargs="+", default=[64, 512], metavar="MIB", help="for the speed")
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--memory", type=int, nargs=2, default=[64, 2048], metavar="MIB", help="for the memory")
    options.add_argument("--folder", type=Path, help="folder for data; default a temporary one")
    options.add_argument("--out", type=Path, help="a file for the tables")
    arguments = options.parse_args()
    if find_spec("masksmith_service") is None:
        raise SystemExit("the service is missing: pip install 'masksmith[service]'")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        speed = {size: measure_speed(folder, size, arguments.rounds) for size in arguments.sizes}
        small, large = arguments.memory
        memory = {small: measure_memory(folder, small, 2), large: measure_memory(folder, large, 1)}
    text = report(speed, memory)
    print(text)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text)
    is_fast = all(
        statistics.median(minimal_s / ours_s for minimal_s, ours_s in rounds) >= MIN_RATIO for rounds in speed.values()
    )
    is_memory_bounded = memory[large][1] - memory[small][1] < MAX_GROWTH_MIB
    return 0 if is_fast and is_memory_bounded else 1


if __name__ == "__main__":
    sys.exit(main())
