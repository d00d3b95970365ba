"""Measure how keys share the workers: small jobs of one key beside the large jobs of another, shares, throughput.

Starts `masksmith up` with keys, and sends jobs over loopback. One key sends small layers, one after the other: first
while no other job runs, then while another key has a model of thousands of shards, then while another key has ADMM on
whole matrices. At last three keys, one of them with weight 3, have a model each.

    python benchmarks/fairness.py [--seconds 25] [--shards 10000] [--only throughput] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import safetensors.numpy
from load import Installation, machine, p99
from measuring import table

from masksmith_client import Client, Job

SMALL, PATTERN = 64, "transposable 8:16"
ADMM_ROWS, ADMM_LAYERS = 1024, 3
MAX_MEDIAN, MAX_P99 = 3.0, 20.0
"""Limits of the seconds of small jobs while large jobs run, in units of their median while no other job runs."""


class Key:
    """An API key of the installation, and two clients with its token."""

    def __init__(self, installation: Installation, folder: Path, name: str, *options: str) -> None:
        command = [Path(sys.executable).with_name("masksmith"), "keys", "create", name, "--data", folder, "--json"]
        output = subprocess.run([*command, *options], capture_output=True, text=True, check=True).stdout
        token = json.loads(output)["token"]
        self.client = Client(installation.url, token)
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx2.Client(base_url=installation.url, headers=headers, timeout=60, trust_env=False)

    def start(self, weights: Mapping[str, np.ndarray]) -> Job:
        """Start a job on weights, which are sent as one file."""
        query = {"pattern": PATTERN, "layers": "*"}
        answer = self._http.post("/v1/masks", params=query, content=safetensors.numpy.save(dict(weights)))
        return self.client.jobs.get(answer.raise_for_status().json()["id"])

    def done(self, job: Job) -> int:
        """Number of finished shards of a job."""
        rows = self._http.get("/v1/jobs").json()["jobs"]
        return int(next(row for row in rows if row["id"] == job.id)["progress"]["done"])


def model(shards: int, seed: int) -> dict[str, np.ndarray]:
    """A model of small layers, one shard each."""
    rng = np.random.default_rng(seed)
    return {f"w{number}": rng.standard_normal((SMALL, SMALL), dtype=np.float32) for number in range(shards)}


@contextmanager
def running_job(key: Key, job: Job) -> Iterator[Job]:
    """Wait until a shard of a job is taken; cancel the job at the end of the block."""
    while job.refresh().document.state == "queued":
        time.sleep(0.05)
    try:
        yield job
    finally:
        job.cancel()


def small_jobs(key: Key, seconds: float, seed: int) -> list[float]:
    """Send small layers for some seconds, one after the other; returns the seconds from each layer to its mask."""
    rng, latencies, until = np.random.default_rng(seed), [], time.monotonic() + seconds
    while time.monotonic() < until:
        weight = rng.standard_normal((SMALL, SMALL), dtype=np.float32)
        started = time.perf_counter()
        key.client.solve({"w": weight}, PATTERN, progress=False)
        latencies.append(time.perf_counter() - started)
    return latencies


def grams(layers: int, rows: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Square weights, and a Gram matrix for each (the same for all)."""
    rng = np.random.default_rng(0)
    weights = {f"w{layer}": rng.standard_normal((rows, rows), dtype=np.float32) for layer in range(layers)}
    activations = rng.standard_normal((2 * rows, rows), dtype=np.float32)
    return weights, dict.fromkeys(weights, activations.T @ activations)


def throughput(key: Key, shards: int, seconds: float) -> float:
    """Shards a second of one job."""
    with running_job(key, key.start(model(shards, 7))) as job:
        first, started = key.done(job), time.monotonic()
        while (count := key.done(job)) < shards and time.monotonic() < started + seconds:
            time.sleep(0.2)
        return (count - first) / (time.monotonic() - started)


def shares(keys: Mapping[str, Key], shards: int, seconds: float) -> dict[str, float]:
    """Share of each key in the shards that are finished in some seconds, while all keys have a job."""
    jobs = {name: key.start(model(shards, seed)) for seed, (name, key) in enumerate(keys.items())}
    before = {name: key.done(jobs[name]) for name, key in keys.items()}
    time.sleep(seconds)
    counts = {name: key.done(jobs[name]) - before[name] for name, key in keys.items()}
    for job in jobs.values():
        job.cancel()
    return {name: count / sum(counts.values()) for name, count in counts.items()}


def latency_row(name: str, seconds: list[float], idle: list[float]) -> list[str]:
    """Row of the table, relative to the idle median."""
    unit, middle, worst = statistics.median(idle), statistics.median(seconds), p99(seconds)
    return [
        name, str(len(seconds)), f"{middle * 1000:.0f} ms", f"{middle / unit:.1f}", f"{worst * 1000:.0f} ms",
        f"{worst / unit:.1f}",
    ]  # fmt: skip


def measure(folder: Path, arguments: argparse.Namespace) -> str:
    """Measure everything; returns the report as Markdown."""
    installation = Installation(folder / "data")
    try:
        ann, bob = (Key(installation, folder / "data", name) for name in ("ann", "bob"))
        cid = Key(installation, folder / "data", "cid", "--weight", "3")
        rate = throughput(ann, arguments.shards, arguments.seconds)
        if arguments.only == "throughput":
            return f"{rate:.0f} shards a second\n"
        # Not measured: the first jobs of a process are slower.
        small_jobs(bob, 2, 1)
        idle = small_jobs(bob, arguments.seconds, 2)
        with running_job(ann, ann.start(model(arguments.shards, 8))) as job:
            beside_model = small_jobs(bob, arguments.seconds, 3)
            unfinished = arguments.shards - ann.done(job)
        weights, calibration = grams(ADMM_LAYERS, ADMM_ROWS)
        options: Any = {"update": "admm", "calibration": calibration, "progress": False}
        with running_job(ann, ann.client.jobs.submit(weights, "2:4", **options)):
            beside_admm = small_jobs(bob, arguments.seconds, 4)
        share = shares({"ann": ann, "bob": bob, "cid": cid}, arguments.shards, arguments.seconds)
    finally:
        installation.stop()
    rows = [
        latency_row("alone", idle, idle),
        latency_row(f"beside a model of {arguments.shards:,} shards", beside_model, idle),
        latency_row(f"beside ADMM on {ADMM_ROWS}x{ADMM_ROWS}", beside_admm, idle),
    ]
    return report(arguments, rows, share, rate, unfinished)


def report(
    arguments: argparse.Namespace, rows: list[list[str]], share: Mapping[str, float], rate: float, unfinished: int
) -> str:
    """Return the report as Markdown.

    Args:
        arguments: The command's arguments.
        rows: Rows of latencies.
        share: Share of each key in the finished shards.
        rate: Shards a second of one job.
        unfinished: Number of shards of the large model that were unfinished when the small jobs had ended.
    """
    pair = share["ann"] / (share["ann"] + share["bob"])
    triple = 2 * share["cid"] / (share["ann"] + share["bob"])
    lines = [
        "# Fairness",
        "",
        f"`python benchmarks/fairness.py --seconds {arguments.seconds} --shards {arguments.shards}`: small jobs "
        f"({SMALL}x{SMALL}, {PATTERN})",
        "of one key, one after the other, beside the jobs of another key. Seconds from sending a layer until its mask",
        "is here; p99 and median relative to the median alone. "
        f"Targets: median at most {MAX_MEDIAN:g}, p99 at most {MAX_P99:g}.",
        "",
        f"- machine: {machine()}",
        "",
        table(["small jobs", "jobs", "median", "relative", "p99", "relative"], rows).rstrip(),
        "",
        f"{unfinished:,} shards of the model were unfinished when the small jobs beside it ended.",
        "",
        table(
            ["shares of finished shards", "measured", "target"],
            [
                ["first of two keys with equal weight", f"{pair:.1%}", "45 to 55 %"],
                ["a key of weight 3, relative to one of weight 1", f"{triple:.2f}", "3"],
            ],
        ).rstrip(),
        "",
        f"Throughput of one job of small shards: {rate:.0f} shards a second.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--seconds", type=float, default=25, help="length of each measurement")
    options.add_argument("--shards", type=int, default=10_000, help="shards of the large model")
    options.add_argument("--only", choices=["throughput"], help="measure only this")
    options.add_argument("--out", type=Path, help="a file for the report")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="ms-") as name:
        text = measure(Path(name), arguments)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
