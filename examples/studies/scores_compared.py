"""Scores: magnitude, Wanda, Taylor.

    python examples/studies/scores_compared.py [--quick] [--out docs/studies]

Molchanov et al. (CVPR 2019) report that first-order Taylor importance, which needs gradients, prunes better than
magnitude; Sun et al. (ICLR 2024) report that Wanda, magnitude times the norm of the input, prunes pretrained
transformers better without any training. Here perceptrons that are trained on digits are pruned by each score; their
accuracy is measured at once and after fine-tuning. All linear layers of MiniLM are pruned, too; the embeddings of
held-out text before and after are compared. Masks are proved optimal for their scores.
"""

from __future__ import annotations

import copy
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from workbench import (
    Scale,
    accuracy,
    axes,
    digits,
    hidden_weights,
    keep_masked,
    nn,
    paired,
    plt as plots,
    run,
    spread,
    table,
    train,
    trained,
    verdict,
)

import masksmith as ms

sys.path.append(str(Path(__file__).resolve().parents[1]))
import minilm

PATTERNS = ("2:4", "1:4", "1:8")
Score = Callable[[torch.Tensor, Any], torch.Tensor]
SCORES: dict[str, Score] = {
    "magnitude": lambda weight, calibrated: ms.magnitude(weight),
    "Wanda": lambda weight, calibrated: ms.wanda(weight, calibrated.norms),
    "Taylor": lambda weight, calibrated: ms.taylor(weight, calibrated.gradient_rms),
}


def prune(pattern: str, seed: int, scale: Scale) -> list[tuple[float, float]]:
    """Prune a trained network by each score; returns accuracies before and after fine-tuning."""
    data, net = digits(seed), trained(seed, scale.epochs)
    batches = list(zip(data.inputs.split(50), data.classes.split(50), strict=True))
    calibration = ms.calibrate(
        net,
        batches,
        gather=("norms", "gradients"),
        layers=list(hidden_weights(net)),
        loss=lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]),
    )
    outcomes = []
    for score in SCORES.values():
        pruned: nn.Module = copy.deepcopy(net)
        masks = {
            name: ms.solve(score(weight.detach(), calibration[name]), pattern).mask
            for name, weight in hidden_weights(net).items()
        }
        apply_masks = keep_masked(pruned, masks)
        at_once = accuracy(pruned, data)
        train(pruned, data, max(1, scale.epochs // 3), seed + 1000, rate=0.02, after_step=apply_masks)
        outcomes.append((at_once, accuracy(pruned, data)))
    return outcomes


def transformer(scale: Scale) -> list[list[str]]:
    """Prune MiniLM by the scores that need no loss; returns 1 - cosine of the embeddings before and after."""
    model, layers = minilm.load(), [glob.replace("encoder.*", "encoder.layer.*") for glob in minilm.LINEARS]
    text = minilm.passages(8 if scale.quick else 32).split(8)
    calibration = ms.calibrate(model, text, gather=("norms",), layers=layers)
    held_out = minilm.passages(4 if scale.quick else 32, held_out=True).split(8)
    state, rows = model.state_dict(), []
    for pattern in PATTERNS[: 1 if scale.quick else None]:
        row = [f"MiniLM, {pattern}"]
        for score in (SCORES["magnitude"], SCORES["Wanda"]):
            weights = {
                name: state[name] * ms.solve(score(state[name], calibration[name]), pattern).mask
                for name in calibration
            }
            distances = []
            with torch.no_grad():
                for batch in held_out:
                    before = model(batch).mean(1)
                    after = torch.func.functional_call(model, weights, batch).mean(1)
                    distances.append(1 - functional.cosine_similarity(before, after))
            row.append(f"{float(torch.cat(distances).mean()):.4f}")
        rows.append(row)
    return rows


def study(scale: Scale) -> tuple[str, plots.Figure]:
    """Prune the perceptrons and the transformer."""
    rows, verdicts = [], []
    figure, plot = axes("", "accuracy before fine-tuning")
    for number, pattern in enumerate(PATTERNS[: 1 if scale.quick else None]):
        outcomes = list(zip(*(prune(pattern, seed, scale) for seed in range(scale.seeds)), strict=True))
        by_score = {name: list(zip(*results, strict=True)) for name, results in zip(SCORES, outcomes, strict=True)}
        for k, when in enumerate(("at once", "fine-tuned")):
            rows.append([f"{pattern}, {when}", *(spread(results[k]) for results in by_score.values())])
            for name in ("Wanda", "Taylor"):
                claim = f"{pattern}, {when}: {name} beats magnitude"
                verdicts.append(verdict(claim, *paired(by_score[name][k], by_score["magnitude"][k])))
        for k, (name, results) in enumerate(by_score.items()):
            plot.bar(number + 0.27 * (k - 1), statistics.mean(results[0]), 0.25, color=f"C{k}", label=name)
    plot.set_xticks(range(number + 1), PATTERNS[: number + 1])
    plot.legend(list(SCORES), fontsize=8)
    header = ("digits", *SCORES)
    text = (
        f"{table(header, rows)}\n\nThe transformer, one run: 1 - cosine of the embeddings before and after pruning:\n\n"
        f"{table(('layers', 'magnitude', 'Wanda'), transformer(scale))}\n\nAre the claims confirmed on the digits?\n\n"
    )
    return text + "\n".join(verdicts), figure


if __name__ == "__main__":
    run("scores_compared", __doc__, study)
