"""Compare `masksmith prune --local` of a directory with copying and solving it, and measure its peak memory.

python benchmarks/checkpoint.py [--blocks N] [--rounds N] [--write]

The checkpoint is random: bfloat16, Llama's shapes, in files of 0.5 GiB. It is compared with `cp -r` plus
`masksmith.solve` of all masked weights in this process, with kernels loaded and scores read beforehand.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
from measuring import ROOT, alternating, stamp, table

import masksmith as ms
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.magnitudes import magnitudes
from masksmith_wire.headers import build_header
from masksmith_wire.quantities import size_text

HIDDEN, INTERMEDIATE, VOCABULARY = 2048, 5504, 32000
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE, "num_attention_heads": 16, "num_key_value_heads": 16,
    "vocab_size": VOCABULARY, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
}  # fmt: skip
FILE_BYTES = 2**29
PATTERNS = ("2:4", "transposable 8:16")
REST_S = 15
"""Seconds of rest before each timed command."""


def shapes(blocks: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors, by name, of a model with this many blocks."""
    by_name: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for number in range(blocks):
        block = f"model.layers.{number}"
        by_name |= {f"{block}.self_attn.{part}_proj.weight": (HIDDEN, HIDDEN) for part in "qkvo"}
        by_name |= {f"{block}.mlp.{part}_proj.weight": (INTERMEDIATE, HIDDEN) for part in ("gate", "up")}
        by_name[f"{block}.mlp.down_proj.weight"] = (HIDDEN, INTERMEDIATE)
        by_name |= {f"{block}.{part}_layernorm.weight": (HIDDEN,) for part in ("input", "post_attention")}
    return by_name | {"model.norm.weight": (HIDDEN,)}


def write_checkpoint(folder: Path, blocks: int) -> int:
    """Write a random checkpoint in files of at most `FILE_BYTES`; returns the bytes of its tensors."""
    groups: list[dict[str, tuple[int, ...]]] = [{}]
    for name, shape in shapes(blocks).items():
        if groups[-1] and sum(map(size, groups[-1].values())) + size(shape) > FILE_BYTES:
            groups.append({})
        groups[-1][name] = shape
    files = [f"model-{number:05}-of-{len(groups):05}.safetensors" for number in range(1, len(groups) + 1)]
    for file, group in zip(files, groups, strict=True):
        write_file(folder / file, group)
    weight_map = {name: file for file, group in zip(files, groups, strict=True) for name in group}
    total = sum(size(shape) for group in groups for shape in group.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": blocks}))
    return total


def size(shape: tuple[int, ...]) -> int:
    """Bytes of a bfloat16 tensor."""
    return 2 * int(np.prod(shape))


def write_file(path: Path, group: dict[str, tuple[int, ...]]) -> None:
    """Write one file of random weights."""
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    with path.open("wb") as file:
        file.write(build_header({name: ("BF16", shape) for name, shape in group.items()}))
        for shape in group.values():
            values = rng.standard_normal(int(np.prod(shape)), dtype=np.float32)
            file.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())


def timed(command: list[str]) -> tuple[float, float]:
    """Run a command and sync; returns the seconds of both, and the command's peak resident memory in MiB."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    os.sync()
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def solve_seconds(model: Path, pattern: str) -> float:
    """Solve the weights of all blocks, one after the other; returns the seconds, without those of reading."""
    seconds = 0.0
    for name, tensor in Checkpoint.open(model).tensors.items():
        if "_proj." in name:
            scores = magnitudes(tensor)
            began = time.perf_counter()
            ms.solve(scores, pattern)
            seconds += time.perf_counter() - began
    return seconds


def measure(model: Path, pattern: str, rounds: int) -> list[str]:
    """Solve, then copy and prune in alternating order, in each round; returns the medians as a row."""
    copies, runs, solves, ratios, peaks = [], [], [], [], []
    # Load the kernels.
    ms.solve(np.ones((64, 64), np.float32), pattern)
    copy, pruned = model.with_name("copy"), model.with_name("pruned")
    masksmith = str(Path(sys.executable).with_name("masksmith"))
    copy_command = ["cp", "-r", str(model), str(copy)]
    prune_command = [masksmith, "prune", str(model), "--pattern", pattern, "--local", "-o", str(pruned), "--json"]
    for round_number in range(rounds):
        solve_s = solve_seconds(model, pattern)
        results = {}
        for target, command in alternating([(copy, copy_command), (pruned, prune_command)], round_number):
            # A virtual machine returns free memory to its host within seconds, and gets it back slowly. After the rest,
            # it has returned the memory before either command starts.
            time.sleep(REST_S)
            results[target] = timed(command)
            shutil.rmtree(target)
        (copy_s, _), (prune_s, peak) = results[copy], results[pruned]
        copies.append(copy_s)
        runs.append(prune_s)
        solves.append(solve_s)
        ratios.append(prune_s / (copy_s + solve_s))
        peaks.append(peak)
    seconds = [f"{statistics.median(values):.1f}" for values in (copies, solves, runs)]
    return [pattern, *seconds, f"{statistics.median(ratios):.2f}", f"{max(peaks):.0f}"]


def main() -> None:
    """Measure and print; with `--write` also write the page of the documentation."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--blocks", type=int, default=18)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--write", action="store_true")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        model.mkdir()
        total = write_checkpoint(model, arguments.blocks)
        # This traces the model's layout once, so that no timed command has to.
        subprocess.run(
            [Path(sys.executable).with_name("masksmith"), "inspect", model], stdout=subprocess.DEVNULL, check=True
        )
        rows = [measure(model, pattern, arguments.rounds) for pattern in PATTERNS]
    head = ("pattern", "cp, s", "solve, s", "prune --local, s", "prune / (cp + solve)", "peak, MiB")
    largest = max(map(size, shapes(arguments.blocks).values())) / 2**20
    description = (
        f"`masksmith prune --local` of a random bfloat16 checkpoint of {size_text(total)} with Llama's shapes,\n"
        "against `cp -r` (each followed by `sync`) and `masksmith.solve` of its weights in memory; medians of\n"
        f"{arguments.rounds} rounds in alternating order, each command after {REST_S} s of rest; the layout had been\n"
        "traced. The largest tensor has\n"
        f"{largest:.0f} MiB; the limit is 1 GiB plus three\n"
        f"times that, {1024 + 3 * largest:.0f} MiB."
    )
    text = f"# Pruning a checkpoint\n\n{stamp()}\n\n{description}\n\n{table(head, rows)}\n"
    print(text)
    if arguments.write:
        (ROOT / "docs" / "benchmarks" / "checkpoint.md").write_text(text)


if __name__ == "__main__":
    main()
