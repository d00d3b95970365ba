"""Compare `masksmith prune --by-reference` with `prune --local`, and measure the memory of service and worker.

python benchmarks/by_reference.py [--blocks N] [--rounds N] [--write]

The checkpoint is that of `checkpoint.py`, and the worker has as many slots as there are cores. Both commands write into
the same file system; each run is followed by `sync`, and stored results are deleted before each run by reference.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from checkpoint import PATTERNS, REST_S, timed, write_checkpoint
from measuring import ROOT, alternating, stamp, table
from memory import children_of, command_line

from masksmith_wire.quantities import size_text

MASKSMITH = str(Path(sys.executable).with_name("masksmith"))


def peak_mib(process: int) -> float:
    """Peak resident memory of a process so far, in MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def measure(folder: Path, url: str, pattern: str, rounds: int) -> tuple[float, float]:
    """Prune by reference and locally, in alternating order after rests; returns the median seconds of both."""
    model, local, referred = (folder / "root" / name for name in ("model", "local", "referred"))
    seconds: dict[str, list[float]] = {"local": [], "referred": []}
    for round_number in range(rounds):
        for results in ("masks", "weights", "statistics"):
            shutil.rmtree(folder / "data" / "store" / results, ignore_errors=True)
        by_reference = ["--by-reference", "--url", url, "-o", str(referred)]
        commands = (("referred", by_reference), ("local", ["--local", "-o", str(local)]))
        for name, options in alternating(commands, round_number):
            time.sleep(REST_S)
            took, _ = timed([MASKSMITH, "prune", str(model), "-p", pattern, "--json", *options])
            seconds[name].append(took)
        for file in model.glob("*.safetensors"):
            subprocess.run(["cmp", local / file.name, referred / file.name], check=True)
        shutil.rmtree(local)
        shutil.rmtree(referred)
    return statistics.median(seconds["referred"]), statistics.median(seconds["local"])


def run(folder: Path, blocks: int, rounds: int) -> tuple[int, list[list[str]], list[list[str]]]:
    """Start an installation and measure; returns the model's bytes, rows of seconds, and rows of memory."""
    model = folder / "root" / "model"
    model.mkdir(parents=True)
    total = write_checkpoint(model, blocks)
    # This traces the model's layout once, so that no timed command has to.
    subprocess.run([MASKSMITH, "inspect", model], stdout=subprocess.DEVNULL, check=True)
    command = [MASKSMITH, "up", "--port", "0", "--data", str(folder / "data"), "--no-bench", "--json"]
    with subprocess.Popen([*command, "--root", str(folder / "root")], stdout=subprocess.PIPE, text=True) as up:
        try:
            assert up.stdout is not None
            url = json.loads(up.stdout.readline())["url"]
            service, worker = (find_child(up.pid, word) for word in ("masksmith_service", "masksmith_worker"))
            before = peak_mib(service)
            rows = []
            for pattern in PATTERNS:
                referred, local = measure(folder, url, pattern, rounds)
                rows.append([pattern, f"{local:.1f}", f"{referred:.1f}", f"{referred / local:.2f}"])
            pool = [pid for pid in children_of(worker) if b"spawn_main" in command_line(pid)]
            memory = [
                ["service, before", f"{before:.0f}"],
                ["service, after", f"{peak_mib(service):.0f}"],
            ]
            memory += [[f"slot {number}", f"{peak_mib(pid):.0f}"] for number, pid in enumerate(pool, 1)]
        finally:
            up.send_signal(signal.SIGINT)
    return total, rows, memory


def find_child(parent: int, word: str) -> int:
    """Return the only child process whose command line contains a word."""
    (child,) = (pid for pid in children_of(parent) if word.encode() in command_line(pid))
    return child


def main() -> None:
    """Measure and print; with `--write` also write the page of the documentation."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--blocks", type=int, default=18)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--write", action="store_true")
    arguments = options.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        total, rows, memory = run(Path(folder), arguments.blocks, arguments.rounds)
    description = (
        f"`masksmith prune` of a random bfloat16 checkpoint of {size_text(total)} with Llama's shapes, from and to\n"
        f"one file system, each run followed by `sync`; medians of {arguments.rounds} rounds in alternating\n"
        f"order, each command after {REST_S} s of rest. By reference:\n"
        f"one worker with {len(os.sched_getaffinity(0))} slots, as many as cores, whose results were deleted before\n"
        "each run. Files of weights of both are equal. Before it began, the machine had a load of\n"
        f"{load:.1f} from other processes.\n"
    )
    head = ("pattern", "prune --local, s", "by reference, s", "by reference / local")
    peaks = table(("process", "peak, MiB"), memory)
    text = f"# Pruning by reference\n\n{stamp()}\n\n{description}\n{table(head, rows)}\n\n{peaks}\n"
    print(text)
    if arguments.write:
        (ROOT / "docs" / "benchmarks" / "by_reference.md").write_text(text)


if __name__ == "__main__":
    main()
