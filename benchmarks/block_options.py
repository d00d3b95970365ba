"""Measure what the order inside a block and tuning gain on a tiny language model that is trained on the spot.

    python benchmarks/block_options.py [--windows 64] [--write]

The text is a Markov chain of 256 tokens. Four Llama blocks of width 64 learn it in 250 steps; then they are pruned to
2:4 by ADMM, and the perplexity is measured on sequences that neither training nor calibration saw.
"""

from __future__ import annotations

import argparse
import copy
import time
from typing import Any

import torch
import transformers
from measuring import ROOT, stamp, table

import masksmith as ms

TOKENS, LENGTH, BATCH = 256, 64, 8
OPTIONS: dict[str, dict[str, Any]] = {
    "together": {"tune_steps": 0},
    "sequential": {"order": "sequential", "tune_steps": 0},
    "together, 200 steps at 0.005": {"tune_steps": 200, "tune_rate": 0.005},
    "together, 200 steps at 0.02": {"tune_steps": 200},
    "together, 200 steps at 0.05": {"tune_steps": 200, "tune_rate": 0.05},
    "sequential, 200 steps at 0.02": {"order": "sequential", "tune_steps": 200},
}


def sequences(probabilities: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Sample sequences from the chain with these transition probabilities."""
    tokens = torch.randint(0, TOKENS, (count, 1), generator=generator)
    for _ in range(LENGTH - 1):
        tokens = torch.cat([tokens, torch.multinomial(probabilities[tokens[:, -1]], 1, generator=generator)], 1)
    return tokens


def trained_model(probabilities: torch.Tensor) -> Any:
    """Train a model on the chain."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=TOKENS, hidden_size=64, intermediate_size=160, num_hidden_layers=4, num_attention_heads=4,
        initializer_range=0.1,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).train()
    optimiser, generator = torch.optim.AdamW(model.parameters(), 1e-3), torch.Generator().manual_seed(1)
    for _ in range(250):
        tokens = sequences(probabilities, 16, generator)
        optimiser.zero_grad()
        model(tokens, labels=tokens).loss.backward()
        optimiser.step()
    return model.eval()


@torch.no_grad()
def perplexity(model: Any, tokens: torch.Tensor) -> float:
    """Return the exponential of the mean loss."""
    return float(model(tokens, labels=tokens).loss.exp())


def main() -> None:
    """Print the table, or write it into the documentation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    probabilities = torch.softmax(4 * torch.randn(TOKENS, TOKENS, generator=torch.Generator().manual_seed(2)), -1)
    model = trained_model(probabilities)
    calibration, held_out = (sequences(probabilities, count, torch.Generator().manual_seed(seed))
                       for count, seed in ((options.windows, 5), (64, 6)))  # fmt: skip
    rows = [("dense", f"{perplexity(model, held_out):.2f}", "-", "-")]
    for name, block_options in OPTIONS.items():
        pruned, started = copy.deepcopy(model), time.process_time()
        batches = [{"input_ids": part} for part in calibration.split(BATCH)]
        report = ms.prune(pruned, batches, "2:4", threads=1, progress=False, **block_options)
        seconds = time.process_time() - started
        rows.append(
            (name, f"{perplexity(pruned, held_out):.2f}", f"{report.blocks[-1].error_after:.2%}", f"{seconds:.1f}")
        )
    page = "\n\n".join([
        "# Order inside a block, and tuning", stamp(),
        f"Four Llama blocks of width 64, trained on a Markov chain, pruned to 2:4 by ADMM, block by block, with "
        f"{options.windows} sequences of {LENGTH} tokens; perplexity on 64 others. "
        "The error is that of the last block's output on the calibration data. Such a "
        "model says which option helps, not how much on a real one.",
        table(("statistics and tuning", "perplexity", "error", "CPU, s"), rows),
    ]) + "\n"  # fmt: skip
    if options.write:
        (ROOT / "docs" / "benchmarks" / "block_options.md").write_text(page)
    else:
        print(page)


if __name__ == "__main__":
    main()
