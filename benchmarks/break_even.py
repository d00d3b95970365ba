"""Measure the break-even density of compressed sparse rows with torch alone, as an independent check of the benchmark.

    python benchmarks/break_even.py [--batch 32,256] [--rounds 15] [--report report.json]

Times `torch.mm(csr, X^T)` and `torch.nn.functional.linear` in turns over random masks of many densities, one thread,
and interpolates where both take the same time. With `--report` (written by `masksmith bench --output report.json`) the
break-even densities are compared with that report's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

SHAPES = ((384, 384), (1536, 384), (384, 1536))
DENSITIES = (0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0.02)
MIN_S = 0.004
"""Least seconds of the calls that are timed together."""


def repeated(call: Callable[[], object]) -> Callable[[], float]:
    """Return a function that makes enough calls to be timed, and returns the seconds of one call."""
    call()
    started = time.perf_counter()
    call()
    calls = max(1, int(MIN_S / max(time.perf_counter() - started, 1e-7)))

    def run() -> float:
        started = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - started) / calls

    return run


def relative_time(shape: tuple[int, int], batch: int, density: float, rounds: int) -> float:
    """Return the median over rounds of sparse time / dense time, each with the faster of two layouts."""
    torch.manual_seed(0)
    weight = torch.randn(shape)
    masked = weight * (torch.rand(shape) < density)
    sparse = masked.to_sparse_csr()
    x = torch.randn(batch, shape[1])
    transposed = weight.t().contiguous()
    dense = (lambda: torch.nn.functional.linear(x, weight), lambda: torch.mm(x, transposed))
    csr = (
        lambda: torch.mm(sparse, x.t()).t().contiguous(),
        lambda: torch.mm(sparse, x.t().contiguous()).t().contiguous(),
    )
    csr_runs, dense_runs = ([repeated(call) for call in layouts] for layouts in (csr, dense))
    ratios = [min(run() for run in csr_runs) / min(run() for run in dense_runs) for _ in range(rounds)]
    return statistics.median(ratios)


def break_even(shape: tuple[int, int], batch: int, rounds: int) -> float | None:
    """Return the density at which the relative time is 1, interpolated; None if it is outside of `DENSITIES`."""
    previous: tuple[float, float] | None = None
    for density in DENSITIES:
        ratio = relative_time(shape, batch, density, rounds)
        if previous is not None and previous[1] >= 1.0 > ratio:
            return density + (previous[0] - density) * (1.0 - ratio) / (previous[1] - ratio)
        previous = density, ratio
    return None


def main() -> None:
    """Measure and print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--batch", default="32,256")
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--report", type=Path)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
    reported_densities = {} if arguments.report is None else reported(arguments.report)
    print("| layer | batch | this script | masksmith bench |\n|---|---:|---:|---:|")
    for shape in SHAPES:
        for batch in map(int, arguments.batch.split(",")):
            break_even_density = break_even(shape, batch, arguments.rounds)
            text = "-" if break_even_density is None else f"{break_even_density:.1%}"
            name = f"{shape[0]}x{shape[1]}"
            print(f"| {name} | {batch} | {text} | {reported_densities.get((name, batch), '-')} |", flush=True)


def reported(path: Path) -> dict[tuple[str, int], str]:
    """Read the break-even densities of `csr` from a report."""
    document = json.loads(path.read_text())
    return {
        (f"{entry['layer']['rows']}x{entry['layer']['cols']}", entry["batch"]): entry["text"]
        for entry in document["break_evens"]
        if (entry["kernel"], entry["family"]) == ("csr", "unstructured")
        and (entry["dtype"], entry["direction"]) == ("float32", "forward")
    }


if __name__ == "__main__":
    main()
