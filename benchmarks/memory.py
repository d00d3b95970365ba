"""Measure the memory that the processes of a CPU worker use after they have solved a job.

python benchmarks/memory.py [--before FOLDER [--before-commit COMMIT]] [--write]

`--before` is the folder with the sources of another version, which is measured, too; its commit is `--before-commit`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measuring import ROOT, stamp, table

from masksmith_client import Client

SLOTS = 2
PACKAGES = ("solver", "wire", "state", "service", "worker", "client")


def measure(sources: Path) -> list[list[str]]:
    """Solve a job with an installation of these sources; returns a row for each process of its worker."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("masksmith")), "up", "--port", "0", "--data", f"{folder}/data"]
        command += ["--workers", str(SLOTS), "--no-bench", "--json"]
        variables = os.environ | {"PYTHONPATH": os.pathsep.join(str(sources / package) for package in PACKAGES)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables) as up:
            try:
                assert up.stdout is not None
                solve(json.loads(up.stdout.readline())["url"])
                (worker,) = (pid for pid in children_of(up.pid) if b"masksmith_worker" in command_line(pid))
                pool = [pid for pid in children_of(worker) if b"spawn_main" in command_line(pid)]
                return [row("parent", worker), *(row(f"slot {number}", pid) for number, pid in enumerate(pool, 1))]
            finally:
                up.send_signal(signal.SIGINT)


def solve(url: str) -> None:
    """Solve a job of several shards, so that all slots of the worker solve some."""
    rng = np.random.default_rng(0)
    weights = {f"w{number}": rng.standard_normal((2048, 2048), dtype=np.float32) for number in range(8)}
    with Client(url) as client:
        masks = client.solve(weights, "transposable 8:16", solver="exact", progress=False)
        assert {report.status for report in masks.job.report.values()} == {"optimal"}


def row(name: str, process: int) -> list[str]:
    """Return PSS (each shared page divided by its users) and resident size in MiB, and whether torch is loaded."""
    sizes = {}
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]:
        key, _, rest = line.partition(":")
        sizes[key] = int(rest.split()[0]) / 1024
    has_torch = "libtorch" in Path(f"/proc/{process}/maps").read_text()
    return [name, f"{sizes['Pss']:.0f}", f"{sizes['Rss']:.0f}", "yes" if has_torch else "no"]


def children_of(process: int) -> list[int]:
    """Return the child processes of all threads of a process."""
    return [
        int(child) for path in Path(f"/proc/{process}/task").glob("*/children") for child in path.read_text().split()
    ]


def command_line(process: int) -> bytes:
    """Return the command line of a process."""
    return Path(f"/proc/{process}/cmdline").read_bytes()


def main() -> None:
    """Measure and print; with `--write` also write the page of the documentation."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--before", type=Path, metavar="FOLDER")
    options.add_argument("--before-commit", default="another version", metavar="COMMIT")
    options.add_argument("--write", action="store_true")
    arguments = options.parse_args()
    versions = [(f"before ({arguments.before_commit})", arguments.before)] if arguments.before else []
    rows = []
    for version, sources in [*versions, ("this commit", ROOT)]:
        rows += [[f"{version}, {name}", *figures] for name, *figures in measure(sources)]
    head = ("process of the worker", "PSS, MiB", "resident, MiB", "torch loaded")
    description = (
        f"A CPU worker of {SLOTS} slots started by `masksmith up`, after a job of eight 2048x2048\n"
        "float32 weights with the solver `exact`; PSS from `/proc/PID/smaps_rollup`. torch is installed."
    )
    text = f"# Memory of a worker\n\n{stamp()}\n\n{description}\n\n{table(head, rows)}\n"
    print(text)
    if arguments.write:
        (ROOT / "docs" / "benchmarks" / "memory.md").write_text(text)


if __name__ == "__main__":
    main()
