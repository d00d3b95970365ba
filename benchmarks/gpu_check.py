"""Check and time all parts of masksmith that run on a GPU, for use on a new machine.

    python benchmarks/gpu_check.py [--device cuda:0] [--quick] [--out gpu] [--parts bits,times,kernels]

Writes its measurements to files in OUT, and prints a line for every part. Exit code 1 if a part failed, 2 if there is
no CUDA device. Parts:

bits       masks and statuses of the exact solver on the device and on the CPU must be equal: every generator of the
           tests, a new seed, three dtypes.
times      the exact solver from 512^2 to 16384^2 by CUDA events, as a share of the copy bandwidth, and other solvers.
kernels    `masksmith.benchmark` on CUDA: every kernel that runs there (cuSPARSELt, CUTLASS, Triton BSR, cuSPARSE CSR),
           both directions, bfloat16 and float16, checked against float64 before they are timed.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from gpu_exact import bits, times

from masksmith.benchmark import Layer, Report, benchmark, draw

PATTERNS = ("2:4", "transposable 2:4", "transposable 8:16", "block 64x64 25%", "block 32x32 10%", "10%")
LARGE = [Layer("square", 4096, 4096), Layer("up", 11008, 4096), Layer("down", 4096, 11008)]
SMALL = [Layer("square", 1024, 1024)]


def kernels(device: str, out: Path, *, quick: bool) -> str:
    """Measure kernels, and write the report."""
    printed_at: list[float] = []
    report = benchmark(
        SMALL if quick else LARGE,
        PATTERNS[:2] if quick else PATTERNS,
        batches=[16, 256] if quick else [1, 32, 256, 4096],
        dtypes=["float16"] if quick else ["float16", "bfloat16"],
        directions=["forward", "backward"],
        device=device,
        curves=not quick,
        rounds=5 if quick else 15,
        on_case=lambda result, number, total: _print_progress(printed_at, number, total, str(result.case)),
    )
    (out / "kernels.json").write_text(report.to_json())
    (out / "kernels.csv").write_text(report.to_csv())
    (out / "kernels.md").write_text(report.to_markdown("Speed-up of masks on this GPU"))
    draw(report, out / "kernels.png")
    return _summary(report)


def _print_progress(printed_at: list[float], number: int, total: int, case: str) -> None:
    """Print the progress, at most once a second; `printed_at` holds the times at which it was printed."""
    if not printed_at or time.monotonic() - printed_at[-1] > 1.0 or number == total:
        printed_at.append(time.monotonic())
        print(f"  {number}/{total} {case}", flush=True)


def _summary(report: Report) -> str:
    """Return a line about a report.

    Raises:
        RuntimeError: If a kernel returned wrong results, or failed.
    """
    if report.failures:
        raise RuntimeError(f"{len(report.failures)} failed, the first: {report.failures[0]}")
    names = sorted({measurement.kernel for result in report.results for measurement in result.measured})
    throttled = sum(bool(result.conditions.get("throttled")) for result in report.results)
    unknown = sum("throttled" not in result.conditions for result in report.results)
    return (
        f"{len(report.results)} cases, kernels {', '.join(names)}; cannot run: {report.skipped}; "
        f"throttled {throttled}, not known of {unknown}"
    )


PARTS: dict[str, Callable[..., str]] = {"bits": bits, "times": times, "kernels": kernels}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--device", default="cuda:0")
    options.add_argument("--quick", action="store_true", help="small shapes: does it run at all?")
    options.add_argument("--out", type=Path, default=Path("gpu"))
    options.add_argument("--parts", default=",".join(PARTS), help="separated by commas")
    arguments = options.parse_args()
    if not torch.cuda.is_available():
        print(f"no CUDA device: torch {torch.__version__} sees none; nothing was checked")
        return 2
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(f"{torch.cuda.get_device_name(arguments.device)}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    failed = 0
    for name in arguments.parts.split(","):
        started = time.monotonic()
        try:
            result = PARTS[name](arguments.device, arguments.out, quick=arguments.quick)
            print(f"ok      {name}: {result} ({time.monotonic() - started:.0f} s)")
        except Exception:  # noqa: BLE001 - the other parts run, too
            failed += 1
            print(f"FAILED  {name} ({time.monotonic() - started:.0f} s)\n{traceback.format_exc()}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
