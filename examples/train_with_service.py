"""Train a small transformer with masks that a masksmith service refreshes asynchronously.

    python examples/train_with_service.py
    python examples/train_with_service.py --measure 60 --out docs/benchmarks/refresh.md

Starts `masksmith up`, trains on the text of Python's own library under transposable 8:16 masks that are refreshed every
20 steps, and ends by verifying the optimality of the last masks with another solver. With `--measure` it alternates
windows with refreshes and windows with a fixed mask, and prints the overhead of refreshes. If there are several
processors, training runs on one of them; broker, service, worker and refresh process run on the others.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import masksmith as ms
from masksmith_client import Client
from masksmith_client.training import SRSTE, Refresh, Sparsifier

PATTERN = "transposable 8:16"
REFRESH_STEPS = 20
"""Steps from one refresh to the next."""
WINDOW_STEPS = 2 * REFRESH_STEPS
"""Steps of a window of the measurement."""
CONTEXT, BATCH, WIDTH, HEADS, BLOCKS = 64, 8, 128, 4, 4


class Block(nn.Module):
    """Attention and a feed-forward network, each with a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_feed = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mix, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.feed = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Transform `[batch, time, width]`."""
        heads = self.mix(self.before_attention(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.feed(self.before_feed(x))


class Transformer(nn.Module):
    """Predicts the next byte of a text."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(256, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*[Block() for _ in range(BLOCKS)])
        self.last = nn.Linear(WIDTH, 256)

    def forward(self, text: Tensor) -> Tensor:
        """Return the logits of the next byte at each position."""
        return self.last(self.blocks(self.tokens(text) + self.positions.weight[: text.shape[1]]))


class Training:
    """A model, its data and its optimizer."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        sources = sorted(Path(os.__file__).parent.glob("[a-d]*.py"))
        self._text = torch.frombuffer(bytearray(b"".join(path.read_bytes() for path in sources)), dtype=torch.uint8)
        self.model = Transformer()
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)

    def step(self) -> float:
        """Run one optimizer step; returns the loss."""
        starts = torch.randint(len(self._text) - CONTEXT - 1, (BATCH,))
        text = torch.stack([self._text[start : start + CONTEXT + 1] for start in starts]).long()
        logits = self.model(text[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return float(loss.detach())


def split_cores() -> tuple[list[int], list[int]]:
    """Return the processor for training, and the processors for all other processes."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores[:1], cores[1:]) if len(cores) > 1 else (cores, cores)


@contextmanager
def installation(data: Path, cores: list[int]) -> Iterator[str]:
    """Run `masksmith up` on these processors and a free port during the block; yields its URL."""
    command = [str(Path(sys.executable).with_name("masksmith")), "up", "--port", "0", "--workers", "1", "--json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MASKSMITH_")}
    cores_before = os.sched_getaffinity(0)
    # Child processes inherit the processors of their parent. With a separate session they are also scheduled
    # separately, if Linux schedules by sessions (autogroup).
    os.sched_setaffinity(0, cores)
    with subprocess.Popen(
        [*command, "--data", str(data)], stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        os.sched_setaffinity(0, cores_before)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise SystemExit("masksmith up did not start; its messages are above")
            yield json.loads(line)["url"]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)


def train(training: Training, sparsifier: Sparsifier, steps: int) -> None:
    """Train, and print the progress."""
    for step in range(1, steps + 1):
        loss = training.step()
        sparsifier.step()
        if step % (5 * REFRESH_STEPS) == 0 or step == steps:
            last = sparsifier.report().refreshes[-1]
            lag = last.applied_at - last.asked_at
            print(f"step {step:>5}  loss {loss:.3f}  flips {last.flip_rate:.2%}  masks {lag} step(s) after the weights")


def prove(training: Training, sparsifier: Sparsifier) -> bool:
    """Refresh once more; returns whether all masks are proved optimal and another solver reaches the same scores."""
    sparsifier.refresh_now()
    all_proved = sparsifier.report().refreshes[-1].optimal
    for layer in sparsifier.report().layers:
        dense = training.model.get_submodule(layer.name.removesuffix(".weight")).parametrizations.weight.original
        other_solution = ms.solve(ms.magnitude(dense), PATTERN, ms.MinCostFlow())
        kept_score = float(dense.detach().double().abs()[sparsifier.masks[layer.name]].sum())
        all_proved &= layer.gap == 0.0 and abs(kept_score - other_solution.objective) <= 1e-9 * kept_score
    return all_proved


@dataclass(frozen=True)
class Cost:
    """Average cost of a step over a window: wall-clock seconds and processor seconds."""

    wall_s: float
    cpu_s: float


def measure_window(training: Training, sparsifier: Sparsifier | None) -> Cost:
    """Train for one window, and return its cost; with a sparsifier, the window contains two refreshes."""
    started, started_cpu = time.perf_counter(), time.process_time()
    for _ in range(WINDOW_STEPS):
        training.step()
        if sparsifier is not None:
            sparsifier.step()
    return Cost((time.perf_counter() - started) / WINDOW_STEPS, (time.process_time() - started_cpu) / WINDOW_STEPS)


def measure(training: Training, sparsifier: Sparsifier, pairs: int) -> list[tuple[Cost, Cost]]:
    """Return the costs (with a fixed mask, with refreshes) of pairs of windows, in random order."""
    generator, measurements = random.Random(0), []
    # Train for half of the steps between two refreshes first, so that no window ends with the request of a refresh.
    for _ in range(REFRESH_STEPS // 2):
        training.step()
        sparsifier.step()
    for _ in range(pairs):
        order = [False, True] if generator.random() < 0.5 else [True, False]
        costs = {refreshes: measure_window(training, sparsifier if refreshes else None) for refreshes in order}
        measurements.append((costs[False], costs[True]))
    return measurements


def median_interval(values: list[float]) -> tuple[float, float, float]:
    """Return the median and the ends of its 95 % confidence interval, from order statistics (binomial)."""
    ordered = sorted(values)
    distance = 1.96 * len(ordered) ** 0.5 / 2
    low, high = int(len(ordered) / 2 - distance), int(len(ordered) / 2 + distance)
    return statistics.median(ordered), ordered[max(low, 0)], ordered[min(high, len(ordered) - 1)]


def report_page(pairs: list[tuple[Cost, Cost]], sparsifier: Sparsifier) -> tuple[str, float]:
    """Return the report, and the upper end of the confidence interval of the overhead in wall-clock time.

    Each pair has the costs of a window with a fixed mask and of one with refreshes.
    """
    overhead, low, high = median_interval([refreshed.wall_s / fixed.wall_s - 1 for fixed, refreshed in pairs])
    cpu_overhead, cpu_low, cpu_high = median_interval([refreshed.cpu_s / fixed.cpu_s - 1 for fixed, refreshed in pairs])
    report, step_s = sparsifier.report(), statistics.median(fixed.wall_s for fixed, _ in pairs)
    deviations = [fixed.wall_s / step_s - 1 for fixed, _ in pairs]
    spread = statistics.quantiles(deviations, n=10) if len(pairs) > 1 else deviations
    records = report.refreshes[1:]
    lags = [record.applied_at - record.asked_at for record in records]
    wait_s = statistics.median(record.wait_s for record in records)
    weights = sum(torch.Size(layer.shape).numel() for layer in report.layers)
    proved_count = sum(record.optimal for record in records)
    lines = [
        "# What refreshes cost a training loop",
        "",
        f"`python examples/train_with_service.py --measure {len(pairs)}`: a transformer of {weights:,} masked weights,",
        f"{PATTERN}, its masks refreshed by a service every {REFRESH_STEPS} steps,",
        f"against the same loop with a fixed mask; pairs of windows of {WINDOW_STEPS} steps in one run,",
        "in random order. Times include copying the weights,",
        "applying the masks and everything else that delays the loop.",
        "",
        f"- machine: {machine()}",
        f"- commit: {commit()}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}",
        "",
        "| | |",
        "|---|---|",
        f"| a step with a fixed mask, median | {step_s * 1e3:.1f} ms |",
        "| windows with a fixed mask, 10th to 90th percentile, against their median "
        f"| {spread[0]:+.2%} to {spread[-1]:+.2%} |",
        f"| difference with refreshes, median of {len(pairs)} pairs | {overhead:+.2%} |",
        f"| its 95 % interval | {low:+.2%} to {high:+.2%} |",
        f"| difference in processor time, which other programs disturb less, median | {cpu_overhead:+.2%} |",
        f"| its 95 % interval | {cpu_low:+.2%} to {cpu_high:+.2%} |",
        f"| refreshes, and those with all masks proved optimal | {len(records)}, {proved_count} |",
        f"| masks applied after the weights were copied, median | {statistics.median(lags):g} steps, {wait_s:.2f} s |",
        f"| masks applied after the weights were copied, at most | {max(lags)} steps |",
        f"| refreshes that were due while an earlier one was pending, and requested after it | {report.late} |",
    ]
    return "\n".join(lines) + "\n", high


def machine() -> str:
    """Describe the machine, and how training shares it with other processes."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    share = f"one for training, niceness {os.nice(0)}; load average {os.getloadavg()[0]:.0f}"
    return f"{model}, {os.cpu_count()} cores, {platform.system()}; {share}"


def commit() -> str:
    """Return the commit of the working directory, or `unknown`."""
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def main() -> int:
    """Train or measure.

    The exit code is 0 if all masks are proved optimal and the 95 % interval of a measured overhead ends at 5 % or less.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--measure", type=int, metavar="PAIRS", help="measure with this many pairs of windows")
    parser.add_argument("--out", type=Path, help="file for the report")
    arguments = parser.parse_args()
    training_cores, other_cores = split_cores()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, other_cores)
    with tempfile.TemporaryDirectory() as folder, installation(Path(folder), other_cores) as url:
        os.sched_setaffinity(0, training_cores)
        training = Training(arguments.seed)
        refresh = Refresh(every=REFRESH_STEPS, cores=other_cores)
        with Sparsifier(training.model, PATTERN, Client(url), refresh, SRSTE(), layers="blocks.*") as sparsifier:
            largest_overhead = 0.0
            if arguments.measure:
                text, largest_overhead = report_page(measure(training, sparsifier, arguments.measure), sparsifier)
                print(text)
                if arguments.out is not None:
                    arguments.out.write_text(text)
            else:
                train(training, sparsifier, arguments.steps)
            all_proved = prove(training, sparsifier)
            print(sparsifier.report())
            sparsifier.bake()
    print("every mask proved optimal, by two solvers" if all_proved else "SOME MASK IS NOT PROVED OPTIMAL")
    return 0 if all_proved and largest_overhead <= 0.05 else 1


if __name__ == "__main__":
    sys.exit(main())
