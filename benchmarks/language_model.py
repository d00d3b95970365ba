"""Perplexity of a pruned language model: masksmith and its peers on the same tokens, one row a run.

python benchmarks/language_model.py MODEL METHOD PATTERN [--write]   add a row
python benchmarks/language_model.py MODEL --missing [--write]        add all rows of TABLE_ROWS that are missing,
                                                                     each measured in a process of its own

MODEL is the directory of SmolLM2-135M-Instruct that docs/language_model.md makes, in float32. Text: the topics of
Python's documentation, every second one to calibrate, the others held out, in windows of 256 tokens. Rows are kept
in docs/benchmarks/language_model.json; a row of another commit stays until it is measured again.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
import transformers
from measuring import ROOT, stamp, table
from peers.alps import alps
from peers.block_by_block import prune_block_by_block
from peers.selection import selection
from peers.sparse_swaps import sparse_swaps
from peers.sparsegpt import sparsegpt
from peers.wanda import wanda

import masksmith as ms
from masksmith.model_pruning.options import TUNE_STEPS

ROWS = ROOT / "docs" / "benchmarks" / "language_model.json"
WINDOW, CALIBRATION_WINDOWS, TEST_WINDOWS, BATCH = 256, 64, 48, 8
HEAD = ("method", "pattern", "perplexity", "seconds", "CPU, s", "peak, MiB", "zeros", "commit")
Tensor = torch.Tensor
Batches = list[dict[str, Tensor]]


def tokens_of(tokenizer: Any, first: int, windows: int) -> Tensor:
    """Return `[windows, WINDOW]` tokens of every second topic, from `first` on."""
    text = " ".join(topics[key] for key in sorted(topics)[first::2])
    ids = tokenizer(text, return_tensors="pt").input_ids[0]
    cut = ids[: len(ids) // WINDOW * WINDOW].reshape(-1, WINDOW)
    return cut[torch.randperm(len(cut), generator=torch.Generator().manual_seed(0))[:windows]]


def batches_of(windows: Tensor) -> Batches:
    """Cut windows into batches for a model."""
    return [{"input_ids": part} for part in windows.split(BATCH)]


@torch.no_grad()
def perplexity(model: Any, batches: Batches) -> float:
    """Return exp of the mean loss of a token."""
    losses = [float(model(**batch, labels=batch["input_ids"]).loss) for batch in batches]
    return math.exp(sum(losses) / len(losses))


def ours(*, batch: int = BATCH, tune_steps: int = 0, **options: Any) -> Callable[[Any, Batches, str], None]:
    """Prune by `masksmith.prune`, in batches of `batch` windows."""

    def run(model: Any, batches: Batches, pattern: str) -> None:
        parts = [{"input_ids": part} for each in batches for part in each["input_ids"].split(batch)]
        ms.prune(model, parts, pattern, tune_steps=tune_steps, progress=True, **options)

    return run


def peer(prune_weight: Callable[..., Tensor]) -> Callable[[Any, Batches, str], None]:
    """Prune by a peer's function, for plain n:m patterns and shares."""

    def run(model: Any, batches: Batches, pattern: str) -> None:
        prune_block_by_block(model, model.model.layers, batches, partial(prune_weight, selection=selection(pattern)))

    return run


METHODS: Mapping[str, Callable[[Any, Batches, str], None]] = {
    "dense": lambda model, batches, pattern: None,
    "magnitude": ours(scores="magnitude", update=None),
    "Wanda": ours(scores="wanda", update=None),
    "Wanda, by row": peer(wanda),
    "RIA": ours(scores="ria", update=None),
    "masksmith, reconstruct": ours(scores="wanda", update="reconstruct"),
    "masksmith, admm": ours(scores="wanda", update="admm"),
    "masksmith, admm, tuned": ours(scores="wanda", update="admm", batch=2, tune_steps=TUNE_STEPS),
    "SparseGPT": peer(sparsegpt),
    "ALPS": peer(alps),
    "SparseSwaps": peer(sparse_swaps),
}
PEERS = ("SparseGPT", "ALPS", "SparseSwaps")
"""Peers that know only plain n:m patterns and shares."""
OURS = ("masksmith, reconstruct", "masksmith, admm", "masksmith, admm, tuned")
BEST = OURS[-1]
SCORES = ("magnitude", "Wanda", "RIA")
TABLE_ROWS = [
    ("dense", "-"),
    *((method, "2:4") for method in (*SCORES, *OURS, *PEERS)),
    *((method, "transposable 8:16") for method in (*SCORES, *OURS)),
    *((method, "50%") for method in (*SCORES, "Wanda, by row", *OURS, *PEERS)),
    *((method, "4:8") for method in ("Wanda", BEST, "SparseGPT")),
    *(
        (method, pattern)
        for pattern in ("transposable 2:4", "transposable 4:8", "transposable 16:32", "block 16x16 50%")
        for method in ("Wanda", BEST)
    ),
]


def measure(directory: Path, method: str, pattern: str) -> dict[str, Any]:
    """Prune and evaluate; returns a row."""
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    calibration, test = tokens_of(tokenizer, 0, CALIBRATION_WINDOWS), tokens_of(tokenizer, 1, TEST_WINDOWS)
    began, cpu_began = time.perf_counter(), time.process_time()
    METHODS[method](model, batches_of(calibration), pattern)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    weights = [layer.weight for layer in model.model.layers.modules() if isinstance(layer, torch.nn.Linear)]
    zeros = sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
    return {
        "method": method,
        "pattern": pattern,
        "perplexity": perplexity(model, batches_of(test)),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "zeros": zeros,
        "tokens_sha256": sha256(torch.cat([calibration, test]).numpy().tobytes()).hexdigest(),
        "stamp": stamp(),
    }


def page(rows: list[dict[str, Any]]) -> str:
    """Render the page: rows by pattern, the best perplexity first."""
    ordered = sorted(rows, key=lambda row: (row["pattern"], row["perplexity"]))
    cells = [_cells(row) for row in ordered]
    text = (
        "SmolLM2-135M-Instruct, from 4-bit weights that transformers dequantised, in float32. All 210 matrices of its\n"
        "blocks are pruned, block by block, each on the outputs of the pruned blocks before it. Text: the topics of\n"
        f"Python's documentation, {CALIBRATION_WINDOWS} windows of {WINDOW} tokens to calibrate and {TEST_WINDOWS}\n"
        f"held out to test (SHA-256 of the tokens {rows[-1]['tokens_sha256'][:16]}). SparseGPT, ALPS and SparseSwaps\n"
        'are our own implementations of the papers. "Tuned" is the default of `masksmith.prune` after an update:\n'
        "steps of Adam on the kept weights of each pruned block, for the error of its output; other rows are without.\n"
        'Wanda compares the weights of a row, "by row", where a share is kept; else the best mask of the pattern is\n'
        "taken. Seconds are those of pruning, on the machine above, which had other work; seconds of its two cores,\n"
        "CPU, depend little on that."
    )
    return f"# Perplexity of a pruned language model\n\n{rows[-1]['stamp']}\n\n{text}\n\n{table(HEAD, cells)}\n"


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    commit = row["stamp"].partition("commit ")[2].partition(";")[0]
    cpu = f"{row['cpu_seconds']:.0f}" if "cpu_seconds" in row else "-"
    figures = (
        f"{row['perplexity']:,.2f}",
        f"{row['seconds']:.0f}",
        cpu,
        f"{row['peak_mib']:.0f}",
        f"{row['zeros']:.1%}",
    )
    return (row["method"], row["pattern"], *figures, commit)


def _read_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(ROWS.read_text()) if ROWS.exists() else []
    return rows


def main() -> None:
    """Measure one row, or all missing rows in a process each, and print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("method", nargs="?", choices=list(METHODS))
    parser.add_argument("pattern", nargs="?", default="2:4")
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/language_model.md and the rows")
    options = parser.parse_args()
    if options.missing:
        _measure_missing(options.model, ["--write"] if options.write else [])
        return
    if options.method is None:
        parser.error("name a METHOD, or use --missing")
    row = measure(options.model, options.method, options.pattern)
    others = _read_rows()  # another run may have written a row since
    rows = [each for each in others if (each["method"], each["pattern"]) != (options.method, options.pattern)] + [row]
    print(json.dumps(row), flush=True)
    if options.write:
        ROWS.write_text(json.dumps(rows, indent=1) + "\n")
        ROWS.with_suffix(".md").write_text(page(rows))
    print(page(rows))


def _measure_missing(model: Path, write: list[str]) -> None:
    """Measure each missing row in a process of its own: the peak of a process's memory never falls."""
    done = {(row["method"], row["pattern"]) for row in _read_rows()}
    for method, pattern in TABLE_ROWS:
        if (method, pattern) not in done:
            subprocess.run([sys.executable, __file__, str(model), method, pattern, *write], check=True)


if __name__ == "__main__":
    main()
