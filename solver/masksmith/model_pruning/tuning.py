"""Tunes all kept weights of a pruned block together, to reduce the error of the block's output."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from masksmith._errors import PruningError

from .activations import Activations
from .block_step import BlockStep
from .options import Options
from .weights import BlockWeight

Tensor = torch.Tensor
Trained = tuple[torch.nn.Parameter, Tensor]
"""A parameter, and a mask of the entries that are tuned."""


@dataclass(frozen=True)
class Tuning:
    """Result of tuning a block; errors as in `BlockReport`.

    Attributes:
        steps: Steps of Adam.
        error_before: Error of the block's output before tuning.
        error_after: Error after tuning; never higher, since otherwise the weights are restored.
        seconds: Seconds of tuning.
    """

    steps: int
    error_before: float
    error_after: float
    seconds: float

    def as_dict(self) -> Mapping[str, Any]:
        """Return it as JSON."""
        return dict(vars(self))


def tune(
    step: BlockStep,
    weights: Sequence[BlockWeight],
    masks: Sequence[Tensor],
    inputs: Activations,
    target: Activations,
    options: Options,
) -> Tuning | None:
    """Lower the mean error of a token's output from a target, `BlockStep.token_errors`, by Adam; the masks are fixed.

    Each step takes one batch, in turn. The rate is relative to the root mean square of each weight's kept entries, and
    falls to 0 as a cosine.

    Returns:
        The result; None if there are no steps or the block has no weights.

    Raises:
        PruningError: If an activation or a gradient is not finite, or the block's output has no gradient.
    """
    if not options.tuning_steps or not weights:
        return None
    started = time.perf_counter()
    before = step.run(inputs, target=target)
    trained = _trained_parameters(weights, masks)
    copies = [parameter.detach().clone() for parameter, _ in trained]
    with _requiring_gradients([parameter for parameter, _ in trained]):
        _descend(step, trained, inputs, target, options)
    after = step.run(inputs, target=target)
    if after > before:
        after = before
        for (parameter, _), copy in zip(trained, copies, strict=True):
            parameter.data.copy_(copy)
    return Tuning(options.tuning_steps, before, after, time.perf_counter() - started)


def _trained_parameters(weights: Sequence[BlockWeight], masks: Sequence[Tensor]) -> list[Trained]:
    """Return the parameters of weights, with masks of the entries that are kept; entries in no weight stay fixed."""
    trained: dict[int, Trained] = {}
    for weight, mask in zip(weights, masks, strict=True):
        parameter = weight.parameter
        kept = torch.as_tensor(mask, device=parameter.device)
        if weight.part is None:
            trained[id(parameter)] = parameter, kept
            continue
        _, kept_of_all = trained.setdefault(id(parameter), (parameter, torch.zeros_like(parameter, dtype=torch.bool)))
        weight.part.view(kept_of_all).copy_(kept)
    return list(trained.values())


def _descend(
    step: BlockStep,
    trained: Sequence[Trained],
    inputs: Activations,
    target: Activations,
    options: Options,
) -> None:
    parameters = [parameter for parameter, _ in trained]
    groups = [{"params": [parameter], "lr": _rate(parameter, kept, options)} for parameter, kept in trained]
    optimiser = torch.optim.Adam(groups, betas=(0.9, 0.95), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda number: 0.5 * (1 + math.cos(math.pi * number / options.tuning_steps))
    )
    for number in range(options.tuning_steps):
        batch = number % step.batches
        gradients = _gradients(step, batch, parameters, inputs, target)
        for (parameter, kept), gradient in zip(trained, gradients, strict=True):
            if not bool(torch.isfinite(gradient).all()):
                raise PruningError(f"a gradient of its tuning contains NaN or infinity in batch {batch}", step.name)
            parameter.grad = gradient * kept
        optimiser.step()
        schedule.step()


def _gradients(
    step: BlockStep, batch: int, parameters: Sequence[Tensor], inputs: Activations, target: Activations
) -> Sequence[Tensor]:
    """Return the gradients of the mean error of a batch; 0 for a parameter that the batch does not use."""
    outputs = step.call(batch).run(step.block, inputs.read(batch), step.name)
    errors = step.token_errors(batch, outputs, target.read(batch))
    if not errors.requires_grad:
        raise PruningError("its output has no gradient, so its weights cannot be tuned; set tune_steps to 0", step.name)
    mean = errors.sum() / max(len(errors), 1)
    return torch.autograd.grad(mean, parameters, allow_unused=True, materialize_grads=True)


def _rate(parameter: Tensor, kept: Tensor, options: Options) -> float:
    values = parameter.detach()[kept & (parameter.detach() != 0)]
    return options.tune_rate * float(values.square().mean().sqrt()) if len(values) else options.tune_rate


@contextmanager
def _requiring_gradients(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Enable gradients of parameters within the context."""
    before = [each.requires_grad for each in parameters]
    try:
        for each in parameters:
            each.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        for each, required in zip(parameters, before, strict=True):
            each.grad = None
            each.requires_grad_(required)
