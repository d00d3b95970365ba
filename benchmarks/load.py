"""Load the service with many clients at once, and measure latencies, polls, processor time and memory.

Starts `masksmith up` and loads it over loopback: some clients send one small layer after the other and wait for each
mask, others send whole models. A separate process polls one finished job before and during the load. The exit code is 0
if no job and no poll failed and the memory of the service grew by less than `MAX_GROWTH_MIB`. MASKSMITH_PROCESSES is
the number of processes of the service.

    python benchmarks/load.py --clients 200 --models 4 --model-mib 1024 --seconds 300 --out docs/benchmarks/load.md
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import math
import os
import platform
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import httpx2
import numpy as np
import safetensors.numpy
from measuring import commit

MIB = 2**20
SMALL, PATTERN = 64, "transposable 8:16"
MODEL_PATTERNS = ("2:4", "4:8", "transposable 8:16", "8:16")
POLL_INTERVAL_S = 0.02
MAX_GROWTH_MIB = 64
PARTS = {"service": b"masksmith_service", "worker": b"masksmith_worker", "valkey": b"valkey-server"}
"""Parts of an installation, and a word in the command line of the process of each."""


class ProcessUsage(NamedTuple):
    """Resources of a process; `cpu_s` includes those of its children that have ended."""

    parent: int
    cpu_s: float
    resident_mib: float
    command: bytes


class Installation:
    """A running `masksmith up` whose data is in `folder`."""

    def __init__(self, folder: Path) -> None:
        command = [Path(sys.executable).with_name("masksmith"), "up", "--port", "0", "--data", folder, "--json"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        self.url = json.loads(self._process.stdout.readline())["url"]

    def stop(self) -> None:
        """End it as Ctrl-C would."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)

    def usage(self) -> dict[str, tuple[float, float]]:
        """CPU seconds and resident MiB of each part, with all processes below it."""
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        processes = {pid: process for pid in pids if (process := _process_usage(pid))}
        usage_by_part = {}
        for part, word in PARTS.items():
            family = {
                pid
                for pid, process in processes.items()
                if process.parent == self._process.pid and word in process.command
            }
            while children := {pid for pid, process in processes.items() if process.parent in family} - family:
                family |= children
            cpu_s = sum(processes[pid].cpu_s for pid in family)
            usage_by_part[part] = (cpu_s, sum(processes[pid].resident_mib for pid in family))
        return usage_by_part


def _process_usage(pid: int) -> ProcessUsage | None:
    """Read the resources of a process; None if it has ended."""
    try:
        # The fields after the name of the command, from the state (0) on; see `man proc_pid_stat`.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
    parent, cpu_ticks, pages = int(fields[1]), sum(map(int, fields[11:15])), int(fields[21])
    cpu_s = cpu_ticks / os.sysconf("SC_CLK_TCK")
    return ProcessUsage(parent, cpu_s, pages * os.sysconf("SC_PAGE_SIZE") / MIB, command)


@dataclass
class Polls:
    """Results of polling a job.

    Attributes:
        seconds: Seconds of each poll that succeeded.
        failures: Descriptions of the others.
    """

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def poll(url: str, job: str, pipe: Connection) -> None:
    """Poll a job until a message arrives in the pipe; then send the results."""
    connection, polls = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60), Polls()
    while not pipe.poll(POLL_INTERVAL_S):
        started = time.perf_counter()
        try:
            connection.request("GET", f"/v1/jobs/{job}")
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()  # The next request opens it again.
            polls.failures.append(f"poll: {error!r}")
            continue
        if answer.status == 200:
            polls.seconds.append(time.perf_counter() - started)
        else:
            polls.failures.append(f"poll: status {answer.status}")
    pipe.send(polls)


@contextmanager
def polled(url: str, job: str) -> Iterator[Polls]:
    """Poll from another process during the block; the yielded object has the results after the block.

    Raises:
        RuntimeError: If the process ended before it sent its results.
    """
    context, polls = get_context("spawn"), Polls()
    ours, theirs = context.Pipe()
    process = context.Process(target=poll, args=(url, job, theirs), daemon=True)
    process.start()
    theirs.close()  # Else `recv` would wait for ever for a process that has ended.
    try:
        yield polls
    finally:
        try:
            ours.send(None)
            received = ours.recv()
        except (EOFError, OSError):
            process.join()
            raise RuntimeError(f"the process that polls ended with exit code {process.exitcode}") from None
        process.join()
        polls.seconds, polls.failures = received.seconds, received.failures


@dataclass
class Load:
    """The clients, and their results.

    Attributes:
        until: Monotonic time at which the clients end.
        run: Number of the run; files differ from those of other runs, since results of equal files are remembered.
        jobs: Number of finished small jobs.
        models: Number of finished models.
        sent_bytes: Bytes of the finished models.
        failures: Descriptions of failed jobs.
        seconds: Seconds from sending a small layer to its report.
    """

    until: float
    run: int = 0
    jobs: int = 0
    models: int = 0
    sent_bytes: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    async def small(self, client: httpx2.AsyncClient, number: int) -> None:
        """One client: sends a new layer, waits for its mask, and sends the next."""
        rng = np.random.default_rng((self.run, number))
        while time.monotonic() < self.until:
            weight = rng.standard_normal((SMALL, SMALL), dtype=np.float32)
            started = time.perf_counter()
            if await self._solve(client, PATTERN, safetensors.numpy.save({"w": weight})):
                self.jobs += 1
                self.seconds.append(time.perf_counter() - started)

    async def model(self, client: httpx2.AsyncClient, number: int, mebibytes: int) -> None:
        """One client: sends whole models, each a new one, with the next pattern."""
        count = 0
        while time.monotonic() < self.until:
            pattern = MODEL_PATTERNS[count % len(MODEL_PATTERNS)]
            count += 1
            if await self._solve(client, pattern, _model_file((self.run, number, count), mebibytes)):
                self.models += 1
                self.sent_bytes += mebibytes * MIB

    async def _solve(self, client: httpx2.AsyncClient, pattern: str, content: bytes | AsyncIterator[bytes]) -> bool:
        """Send a file and wait for its job; returns whether the job succeeded. A failure is added to `failures`."""
        try:
            answer = await client.post(
                "/v1/masks", params={"pattern": pattern}, content=content, headers={"Prefer": "wait=60"}
            )
            job = answer.json()
            while answer.is_success and job["state"] in ("queued", "running"):
                await asyncio.sleep(0.5)
                job = (await client.get(f"/v1/jobs/{job['id']}")).json()
        except (httpx2.HTTPError, ValueError) as error:
            self.failures.append(repr(error))
            return False
        if job.get("state") != "succeeded":
            self.failures.append(answer.text[:300])
            return False
        return True


async def _model_file(number: tuple[int, ...], mebibytes: int) -> AsyncIterator[bytes]:
    """Generate a file of layers of 16 MiB (the last may be smaller) while it is sent; its data repeats every MiB."""
    piece = np.random.default_rng(number).standard_normal(MIB // 4, dtype=np.float32).tobytes()
    layers, rest = divmod(mebibytes, 16)
    sizes = [16 * MIB] * layers
    if rest:
        sizes.append(rest * MIB)
    header, start = {}, 0
    for index, size in enumerate(sizes):
        offsets = [start, start + size]
        header[f"layer{index}"] = {"dtype": "F32", "shape": [size // 4096, 1024], "data_offsets": offsets}
        start += size
    text = json.dumps({"__metadata__": {"number": str(number)}, **header}).encode()
    yield struct.pack("<Q", len(text)) + text
    for _ in range(mebibytes):
        yield piece


async def drive(
    installation: Installation, arguments: argparse.Namespace, run: int
) -> tuple[Load, list[dict[str, float]]]:
    """Run all clients; returns their results, and the memory of each part in MiB at every second."""
    load, memory = Load(time.monotonic() + arguments.seconds, run), []

    async def watch() -> None:
        while True:
            memory.append({part: mebibytes for part, (_, mebibytes) in installation.usage().items()})
            await asyncio.sleep(1)

    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=installation.url, timeout=600, limits=limits, trust_env=False) as client:
        watch_task = asyncio.create_task(watch())
        small = [load.small(client, number) for number in range(arguments.clients)]
        models = [load.model(client, number, arguments.model_mib) for number in range(arguments.models)]
        await asyncio.gather(*small, *models)
        watch_task.cancel()
    return load, memory


def p99(values: list[float]) -> float:
    """The 99th percentile; NaN of fewer than two values."""
    return statistics.quantiles(values, n=100)[98] if len(values) > 1 else math.nan


def median(values: list[float]) -> float:
    """The median; NaN of no values."""
    return statistics.median(values) if values else math.nan


def figure(value: float, style: str) -> str:
    """Format a figure; `-` if there is none."""
    return "-" if math.isnan(value) else format(value, style)


def poll_times(seconds: list[float]) -> str:
    """Return median and 99th percentile of polls as text."""
    return f"median {figure(median(seconds) * 1000, '.1f')} ms, p99 {figure(p99(seconds) * 1000, '.1f')} ms"


def machine() -> str:
    """Name machine and commit."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    return (
        f"{model}, {len(os.sched_getaffinity(0))} cores shared with the clients, Python {platform.python_version()}; "
        f"commit {commit()}, {time.strftime('%Y-%m-%d')}"
    )


def measure(folder: Path, arguments: argparse.Namespace) -> tuple[str, bool]:
    """Load an installation; returns the report, and whether the limits of the exit code hold."""
    installation = Installation(folder)
    try:
        alone = argparse.Namespace(clients=1, models=0, model_mib=0, seconds=10)
        first, _ = asyncio.run(drive(installation, alone, run=0))
        assert first.jobs, first.failures
        job = httpx2.get(f"{installation.url}/v1/jobs?limit=1", trust_env=False).json()["jobs"][0]["id"]
        with polled(installation.url, job) as idle:
            time.sleep(max(10, arguments.seconds / 10))
        before, started = installation.usage(), time.monotonic()
        with polled(installation.url, job) as loaded:
            load, memory = asyncio.run(drive(installation, arguments, run=1))
        took, after = time.monotonic() - started, installation.usage()
    finally:
        installation.stop()
    cores = {part: (after[part][0] - before[part][0]) / took for part in PARTS}
    load.failures += idle.failures + loaded.failures
    return report(arguments, load, memory, idle.seconds, loaded.seconds, cores, took)


def report(
    arguments: argparse.Namespace,
    load: Load,
    memory: list[dict[str, float]],
    idle: list[float],
    loaded: list[float],
    cores: dict[str, float],
    took: float,
) -> tuple[str, bool]:
    """Return the report as Markdown, and whether the limits of the exit code hold.

    Args:
        arguments: The command's arguments.
        load: Results of the clients.
        memory: MiB of each part at every second of the load.
        idle: Seconds of each poll before the load.
        loaded: Seconds of each poll during the load.
        cores: CPU seconds of each part per second.
        took: Seconds of the load.
    """
    settled, ratio = memory[len(memory) // 4 :], p99(loaded) / p99(idle)
    start = settled[0] if settled else dict.fromkeys(PARTS, math.nan)
    growth = {part: settled[-1][part] - start[part] if settled else math.nan for part in PARTS}
    busiest = max(cores, key=lambda part: cores[part])
    is_within_limits = not load.failures and growth["service"] < MAX_GROWTH_MIB
    lines = [
        "# Load",
        "",
        f"`python benchmarks/load.py --clients {arguments.clients} --models {arguments.models} "
        f"--model-mib {arguments.model_mib} --seconds {arguments.seconds}`:",
        f"{arguments.clients} clients with layers of {SMALL}x{SMALL}, {arguments.models} with models of "
        f"{arguments.model_mib} MiB, {took:.0f} s, over loopback.",
        "",
        f"- machine: {machine()}",
        f"- processes of the service: {os.environ.get('MASKSMITH_PROCESSES', '1')}",
        "",
        "| what | measured |",
        "|---|---|",
        f"| small jobs | {load.jobs} done, {load.jobs / took:.1f} a second |",
        f"| seconds from sending a layer to its report, median and p99 | {figure(median(load.seconds), '.2f')}, "
        f"{figure(p99(load.seconds), '.2f')} |",
        f"| models | {load.models} done, {load.sent_bytes / MIB / took:.0f} MiB a second |",
        f"| failed jobs and polls | {len(load.failures)} |",
        f"| status polls, idle | {poll_times(idle)} |",
        f"| status polls, under load | {poll_times(loaded)}: {figure(ratio, '.1f')} times the idle p99 |",
    ]
    lines += [
        f"| {part} | {cores[part]:.2f} cores; {figure(start[part], '.0f')} MiB after a quarter of the time, "
        f"{figure(growth[part], '+.0f')} MiB since |"
        for part in PARTS
    ]
    lines += [
        "",
        f"The bottleneck of small jobs is the {busiest}, which takes {cores[busiest]:.2f} cores: "
        f"{cores[busiest] * took / max(1, load.jobs) * 1000:.0f} ms of processor time a job, models included.",
    ]
    lines += ["", *(f"- {failure}" for failure in load.failures[:10])]
    return "\n".join(lines).rstrip() + "\n", is_within_limits


def main() -> int:
    """Measure and print; returns the exit code."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--clients", type=int, default=50, help="clients that send small layers")
    options.add_argument("--models", type=int, default=2, help="clients that send models")
    options.add_argument("--model-mib", type=int, default=256)
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument("--folder", type=Path, help="folder for data; default a temporary one")
    options.add_argument("--out", type=Path, help="a file for the table")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="ms-") as name:
        text, is_within_limits = measure(Path(name), arguments)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text)
    return 0 if is_within_limits else 1


if __name__ == "__main__":
    sys.exit(main())
