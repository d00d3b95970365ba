"""From unstructured sparsity to N:M, with and without reconstruction.

    python examples/studies/conversion.py [--quick] [--out docs/studies]

Hubara et al. (NeurIPS 2021) turn a net that was pruned without structure into an N:M net without training it again:
AdaPrune chooses masks by magnitude and fits the kept weights of each layer to the outputs of the unconverted layer on
a few samples. They report that this recovers nearly all of the accuracy that the masks alone lose. Here 25 % of a
perceptron's weights are kept, the perceptron is fine-tuned, and then converted. The fit is exact (`ms.reconstruct`);
it is compared with ADMM, which optimizes the mask, too.
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
    """Convert a network in the three ways; returns the accuracy of each way."""
    calibration = ms.calibrate(net, [data.inputs[:SAMPLES]], gather=("gram",), layers=list(hidden_weights(net)))
    converted = [copy.deepcopy(net) for _ in WAYS]
    for name, weight in hidden_weights(net).items():
        mask = ms.solve(ms.magnitude(weight), pattern).mask
        updated_weights = [
            weight * mask,
            ms.reconstruct(weight, mask, calibration[name].gram).weight,
            ms.admm(weight, calibration[name].gram, pattern).weight,
        ]
        for result, updated_weight in zip(converted, updated_weights, strict=True):
            with torch.no_grad():
                hidden_weights(result)[name].copy_(updated_weight)
    return [accuracy(result, data) for result in converted]


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
        rows.append([pattern, *(spread(accuracies) for accuracies in outcomes)])
        for k, accuracies in enumerate(outcomes):
            plot.bar(number + 0.27 * (k - 1), statistics.mean(accuracies), 0.25, color=f"C{k}", label=WAYS[k])
        masked, reconstructed, by_admm = outcomes
        verdicts.append(verdict(f"{pattern}: the mask alone loses accuracy", *paired(before, masked)))
        verdicts.append(verdict(f"{pattern}: reconstruction recovers some of it", *paired(reconstructed, masked)))
        verdicts.append(verdict(f"{pattern}: reconstruction does not recover all", *paired(before, reconstructed)))
        verdicts.append(verdict(f"{pattern}: ADMM recovers more", *paired(by_admm, reconstructed)))
    plot.set_xticks(range(len(patterns)), patterns, fontsize=8)
    plot.legend(WAYS, fontsize=8, loc="lower right")
    rule = f"The zero rate is {rate:.0%}; at quantile 0.95 `ms.choose_n` would keep {ms.choose_n(rate, 8)} of 8."
    header = ("pattern", *WAYS)
    return f"{rule}\n\n{table(header, rows)}\n\nAre the claims confirmed?\n\n" + "\n".join(verdicts), figure


if __name__ == "__main__":
    run("conversion", __doc__, study)
