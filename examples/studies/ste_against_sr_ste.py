"""N:M from scratch: STE against SR-STE.

    python examples/studies/ste_against_sr_ste.py [--quick] [--out docs/studies]

Zhou et al. (ICLR 2021) train N:M nets from scratch, the mask following the weights. With the straight-through
estimator (STE) pruned weights get the gradient of the masked ones; SR-STE adds a decay that pulls them to 0. They
report that STE's masks flip more (SAD, the number of mask bits that change), and that SR-STE ends with higher
accuracy. Here a perceptron learns digits, masks refreshed every 5 steps and proved optimal every time; the decay,
0.0002 in the paper, is also tried larger, for a net as small as this one takes few steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from workbench import (
    Scale,
    accuracy,
    axes,
    digits,
    paired,
    perceptron,
    plt as plots,
    run,
    spread,
    table,
    train,
    verdict,
)

import masksmith as ms
from masksmith_client.training import SRSTE, Method, Refresh, Sparsifier, StraightThrough

PATTERNS = ("2:4", "1:4", "1:8")
METHODS: Mapping[str, Method] = {
    "STE": StraightThrough(),
    "SR-STE 0.0002": SRSTE(2e-4),
    "SR-STE 0.002": SRSTE(2e-3),
    "SR-STE 0.02": SRSTE(2e-2),
}
EVERY = 5


def learn(pattern: str | None, method: Method | None, seed: int, epochs: int) -> tuple[float, list[int]]:
    """Train a network; returns its accuracy and the number of mask bits that each refresh changed."""
    data, net = digits(seed), perceptron(seed)
    if pattern is None or method is None:
        train(net, data, epochs, seed)
        return accuracy(net, data), []
    layers = ["0.weight", "2.weight"]
    refresh = Refresh(every=EVERY, wait=True)
    # The rate of the paper's decay is the optimizer's business; the weight decay of the others is left out here.
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    sparsifier = Sparsifier(net, pattern, masks=ms.solve, refresh=refresh, method=method, layers=layers)
    train(net, data, epochs, seed, optimizer=optimizer, after_step=lambda step: sparsifier.step())
    changes = [record.sad for record in sparsifier.report().refreshes]
    sparsifier.bake()
    return accuracy(net, data), changes


def study(scale: Scale) -> tuple[str, plots.Figure]:
    """Train every pattern with every method."""
    rows, verdicts = [], []
    figure, plot = axes("refresh", "mask bits changed since the last one (2:4)")
    dense = [learn(None, None, seed, scale.epochs)[0] for seed in range(scale.seeds)]
    rows.append(["dense", "", spread(dense), "", ""])
    for pattern in PATTERNS[: 1 if scale.quick else None]:
        outcomes = {
            name: [learn(pattern, method, seed, scale.epochs) for seed in range(scale.seeds)]
            for name, method in METHODS.items()
        }
        accuracies = {name: [reached for reached, _ in runs] for name, runs in outcomes.items()}
        flips = {name: [float(sum(changes)) for _, changes in runs] for name, runs in outcomes.items()}
        late = {
            name: [float(sum(changes[len(changes) // 2 :])) for _, changes in runs] for name, runs in outcomes.items()
        }
        for name, runs in outcomes.items():
            rows.append(
                [pattern, name, spread(accuracies[name]), spread(flips[name], ",.0f"), spread(late[name], ",.0f")]
            )
            if pattern == PATTERNS[0]:
                curve = torch.tensor([changes[1:] for _, changes in runs]).float().mean(0)
                plot.plot(range(1, len(curve) + 1), curve, label=name)
        for name in list(METHODS)[1:]:
            claim = f"{pattern}, {name} has more accuracy than STE"
            verdicts.append(verdict(claim, *paired(accuracies[name], accuracies["STE"])))
            fewer = paired(flips["STE"], flips[name])
            verdicts.append(verdict(f"{pattern}, {name} flips fewer mask bits than STE", *fewer, ",.0f"))
    plot.set_yscale("symlog")
    plot.legend()
    head = ("pattern", "method", "accuracy", "SAD, all refreshes", "SAD, second half")
    return f"{table(head, rows)}\n\nDid the claims show up?\n\n" + "\n".join(verdicts), figure


if __name__ == "__main__":
    run("ste_against_sr_ste", __doc__, study)
