"""From unstructured sparsity to N:M, with and without reconstruction.

    python examples/studies/conversion.py [--quick] [--out docs/studies]

Hubara et al. (NeurIPS 2021) turn a net that was pruned without structure into an N:M net without training it again:
AdaPrune chooses masks by magnitude and refits the kept weights of each layer to its outputs on a few samples. They
report that this recovers nearly all of the accuracy that the masks alone lose. Here a perceptron is pruned to 25 %,
fine-tuned, and converted; the refit is exact (`ms.reconstruct`), and ADMM, which looks for the mask too, is tried
beside it.
"""

from __future__ import annotations

import copy
import statistics

import torch
from workbench import (
    Digits,
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

PATTERNS = ("2:8", "2:4", "1:4", "transposable 2:8", "transposable 1:4")
WAYS = ("mask alone", "reconstructed", "ADMM")
SAMPLES = 500


def unstructured(seed: int, data: Digits, epochs: int) -> nn.Module:
    """Return a net whose hidden weights are three quarters zeros."""
    net = trained(seed, epochs)
    masks = {name: ms.solve(ms.magnitude(weight), "25%").mask for name, weight in hidden_weights(net).items()}
    train(net, data, epochs, seed + 1000, rate=0.02, after_step=keep_masked(net, masks))
    return net


def convert(net: nn.Module, data: Digits, pattern: str) -> list[float]:
    """Convert a network in all three ways; returns the accuracy of each."""
    known = ms.calibrate(net, [data.inputs[:SAMPLES]], gather=("gram",), layers=list(hidden_weights(net)))
    results = [copy.deepcopy(net) for _ in WAYS]
    for name, weight in hidden_weights(net).items():
        mask = ms.solve(ms.magnitude(weight), pattern).mask
        outcomes = [
            weight * mask,
            ms.reconstruct(weight, mask, known[name].gram).weight,
            ms.admm(weight, known[name].gram, pattern).weight,
        ]
        for result, updated in zip(results, outcomes, strict=True):
            with torch.no_grad():
                hidden_weights(result)[name].copy_(updated)
    return [accuracy(result, data) for result in results]


def study(scale: Scale) -> tuple[str, plots.Figure]:
    """Convert to every pattern."""
    nets = [(unstructured(seed, digits(seed), scale.epochs), digits(seed)) for seed in range(scale.seeds)]
    before = [accuracy(net, data) for net, data in nets]
    rate = statistics.mean(ms.zero_rate(weight.detach()) for net, _ in nets for weight in hidden_weights(net).values())
    rows, verdicts = [["25% unstructured", spread(before), "", ""]], []
    figure, plot = axes("", "accuracy")
    patterns = PATTERNS[: 2 if scale.quick else None]
    for number, pattern in enumerate(patterns):
        outcomes = list(zip(*(convert(net, data, pattern) for net, data in nets), strict=True))
        rows.append([pattern, *(spread(reached) for reached in outcomes)])
        for k, reached in enumerate(outcomes):
            plot.bar(number + 0.27 * (k - 1), statistics.mean(reached), 0.25, color=f"C{k}", label=WAYS[k])
        alone, rebuilt, searched = outcomes
        verdicts.append(verdict(f"{pattern}: the mask alone loses accuracy", *paired(before, alone)))
        verdicts.append(verdict(f"{pattern}: reconstruction recovers some", *paired(rebuilt, alone)))
        verdicts.append(verdict(f"{pattern}: something is still missing", *paired(before, rebuilt)))
        verdicts.append(verdict(f"{pattern}: ADMM recovers more", *paired(searched, rebuilt)))
    plot.set_xticks(range(len(patterns)), patterns, fontsize=8)
    plot.legend(WAYS, fontsize=8, loc="lower right")
    rule = f"The zero rate is {rate:.0%}; at quantile 0.95 `ms.choose_n` would keep {ms.choose_n(rate, 8)} of 8."
    head = ("pattern", *WAYS)
    return f"{rule}\n\n{table(head, rows)}\n\nDid the claims show up?\n\n" + "\n".join(verdicts), figure


if __name__ == "__main__":
    run("conversion", __doc__, study)
