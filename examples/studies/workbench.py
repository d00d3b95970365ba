"""Data, network, training, statistics, tables and plots used by all studies.

The data are the 1797 digits of scikit-learn: 8 x 8 pixels, ten classes. A seed determines the split, the initial
weights and the order of the samples; nothing else is random. Methods that are compared use the same seeds.
"""

from __future__ import annotations

import argparse
import copy
import math
import platform
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import matplotlib as mpl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

mpl.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parents[2]
WIDTH, CLASSES = 128, 10
TEST_SAMPLES, BATCH = 797, 50


@dataclass(frozen=True)
class Digits:
    """A train/test split: pixels in [0, 1], `[samples, 64]`, and classes."""

    inputs: torch.Tensor
    classes: torch.Tensor
    test_inputs: torch.Tensor
    test_classes: torch.Tensor

    def batches(self, epochs: int, seed: int, size: int = BATCH) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the training samples in batches, shuffled in each epoch."""
        generator = torch.Generator().manual_seed(seed)
        for _ in range(epochs):
            for rows in torch.randperm(len(self.inputs), generator=generator).split(size):
                yield self.inputs[rows], self.classes[rows]


@dataclass(frozen=True)
class Scale:
    """Size of a study: number of seeds and epochs, and whether it is a quick run as a smoke test."""

    seeds: int
    epochs: int
    quick: bool


def digits(seed: int, training_samples: int = 1000) -> Digits:
    """Split the digits, in random order: 797 test samples, then `training_samples` training samples."""
    pixels, classes = load_digits(return_X_y=True)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed))
    inputs, targets = torch.from_numpy(pixels).float()[order] / 16, torch.from_numpy(classes).long()[order]
    train, test = slice(TEST_SAMPLES, TEST_SAMPLES + training_samples), slice(TEST_SAMPLES)
    return Digits(inputs[train], targets[train], inputs[test], targets[test])


def perceptron(seed: int, width: int = WIDTH, hidden_layers: int = 2) -> nn.Sequential:
    """Return a network of `hidden_layers` layers of `width` outputs, each with ReLU, and an output layer."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for k in range(hidden_layers):
        layers += [nn.Linear(64 if k == 0 else width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, CLASSES))


def hidden_weights(net: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights that studies prune: those of all linear layers but the last."""
    linears = [(f"{name}.weight", layer.weight) for name, layer in net.named_modules() if isinstance(layer, nn.Linear)]
    return dict(linears[:-1])


def train(
    net: nn.Module,
    data: Digits,
    epochs: int,
    seed: int,
    *,
    rate: float = 0.1,
    after_step: Callable[[int], None] = lambda step: None,
    penalty: Callable[[], torch.Tensor] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Train by SGD with momentum, or by `optimizer`; the rate falls to 0 along a cosine.

    Args:
        net: The network.
        data: The digits.
        epochs: Number of epochs.
        seed: Determines the order of the samples.
        rate: Rate at the first step, without `optimizer`.
        after_step: Called after each step with its number, from 1.
        penalty: Returns a term that is added to the loss.
        optimizer: Replaces SGD with momentum 0.9 and weight decay 0.0001.
    """
    optimizer = optimizer or torch.optim.SGD(net.parameters(), rate, momentum=0.9, weight_decay=1e-4)
    steps = epochs * math.ceil(len(data.inputs) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    for step, (inputs, classes) in enumerate(data.batches(epochs, seed), 1):
        loss = functional.cross_entropy(net(inputs), classes)
        if penalty is not None:
            loss = loss + penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after_step(step)
        schedule.step()


@cache
def _trained(seed: int, epochs: int) -> nn.Sequential:
    net = perceptron(seed)
    train(net, digits(seed), epochs, seed)
    return net


def trained(seed: int, epochs: int) -> nn.Sequential:
    """Return a dense network trained on the seed's digits: the starting point of most studies."""
    return copy.deepcopy(_trained(seed, epochs))


def keep_masked(net: nn.Module, masks: dict[str, torch.Tensor]) -> Callable[[int], None]:
    """Apply masks to a network's weights; returns the function that applies them again, for `after_step` of `train`."""
    weights = {name: dict(net.named_parameters())[name] for name in masks}

    def apply_masks(step: int = 0) -> None:
        with torch.no_grad():
            for name, mask in masks.items():
                weights[name].mul_(mask)

    apply_masks()
    return apply_masks


def accuracy(net: nn.Module, data: Digits) -> float:
    """Return the share of the test digits that are classified correctly."""
    with torch.no_grad():
        return float((net(data.test_inputs).argmax(1) == data.test_classes).float().mean())


def spread(values: Sequence[float], form: str = ".2%") -> str:
    """Return a text with mean and standard deviation, in the number format `form`."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):{form}} ± {deviation:{form}}"


def paired(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Return the mean of `first - second` over the seeds, and twice its standard error."""
    differences = [a - b for a, b in zip(first, second, strict=True)]
    error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else 0.0
    return statistics.mean(differences), 2 * error


def verdict(claim: str, difference: float, margin: float, form: str = ".2%") -> str:
    """Return a line that says whether a claim is confirmed.

    Args:
        claim: The claim that `difference` is positive.
        difference: Mean difference; see `paired`.
        margin: Twice the standard error of the difference; the claim is confirmed if `difference` exceeds it.
        form: Number format.
    """
    if difference > margin:
        word = "yes"
    elif difference < -margin:
        word = "the opposite"
    else:
        word = "not beyond the noise"
    return f"- {claim}: **{word}** ({difference:+{form}}, two standard errors {margin:{form}})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Render a Markdown table."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def run(name: str, description: str, study: Callable[[Scale], tuple[str, plt.Figure]]) -> None:
    """Parse the command line, run the study, print its page, and write page and plot with `--out`.

    Args:
        name: Name of the files.
        description: Docstring of the study: title, a paragraph with the command line, and the text of the page.
        study: Runs the study; returns the results as Markdown, and the plot.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two seeds and few epochs, as a smoke test")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=Path, help="folder to write page and plot to, such as docs/studies")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    scale = Scale(2, 2, quick=True) if arguments.quick else Scale(arguments.seeds, arguments.epochs, quick=False)
    text, figure = study(scale)
    title, _, rest = description.partition("\n\n")
    introduction = rest.split("\n\n", 1)[1] if rest.startswith("    python") else rest
    title = title.rstrip(".")
    page = f"# {title}\n\n{introduction.strip()}\n\n{_stamp(scale)}\n\n{text}\n\n![{title}]({name}.png)\n"
    print(page)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / f"{name}.md").write_text(page)
        figure.savefig(arguments.out / f"{name}.png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def axes(xlabel: str, ylabel: str) -> tuple[plt.Figure, plt.Axes]:
    """Create a figure with labelled axes and a grid."""
    figure, plot = plt.subplots(figsize=(6.4, 3.6))
    plot.set_xlabel(xlabel)
    plot.set_ylabel(ylabel)
    plot.grid(alpha=0.3)
    return figure, plot


def _stamp(scale: Scale) -> str:
    """Return a line with size, commit, version of torch, system and date of a run."""
    command = ("git", "rev-parse", "--short", "HEAD")
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    meaning = "a quick trial, which proves nothing" if scale.quick else "mean ± standard deviation over seeds"
    return (
        f"{scale.seeds} seeds, {scale.epochs} epochs, {meaning}. Commit {commit or 'unknown'}, "
        f"torch {torch.__version__}, {platform.system()}, {datetime.now(UTC).date()}."
    )
