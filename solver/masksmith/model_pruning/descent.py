"""Steps of Adam on the kept weights of a block, with the masks fixed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from masksmith._tensors import as_torch

from .activations import Activations
from .block_step import BlockStep
from .options import Options
from .report import WeightReport
from .weights import BlockWeight

Tensor = torch.Tensor

LOSS_SCALE = 1024.0
"""Factor of the loss if a tuned parameter has 16 bits: without it, small gradients would be 0 in float16."""


class StoppedError(Exception):
    """The block cannot be differentiated, or a gradient is not finite; the weights must be restored."""


@dataclass(frozen=True)
class TunedParameter:
    """A parameter of a block, and the values that Adam changes.

    Attributes:
        parameter: The parameter.
        tuned_entries: Mask of the entries that are tuned.
        values: The parameter's own memory; or a contiguous copy, which is written into the parameter after each step.
            It is a copy if the dtype has 16 bits (then in float32, since in float16, Adam's averages of squared
            gradients would be 0), or if the parameter is not contiguous (see `_values_of`).
    """

    parameter: torch.nn.Parameter
    tuned_entries: Tensor
    values: Tensor

    @property
    def is_copy(self) -> bool:
        """Whether `values` is a copy."""
        return self.values.data_ptr() != self.parameter.data_ptr()


def tuned_parameters(weights: Sequence[BlockWeight], reports: Sequence[WeightReport]) -> list[TunedParameter]:
    """Return the parameters of pruned weights, with masks of the entries to tune: the kept ones.

    Matrices without data, and entries of a parameter that are in none of the weights, are not tuned.
    """
    by_parameter: dict[int, tuple[torch.nn.Parameter, Tensor]] = {}
    for weight, report in zip(weights, reports, strict=True):
        parameter = weight.parameter
        entries = as_torch(report.mask).to(parameter.device, copy=True)
        for number, matrix in enumerate(weight.layout.matrices(entries)):
            if weight.matrix_name(number) in report.without_data:
                matrix.zero_()
        if weight.part is None:
            by_parameter[id(parameter)] = parameter, entries
            continue
        no_entry = torch.zeros_like(parameter, dtype=torch.bool)
        weight.part.view(by_parameter.setdefault(id(parameter), (parameter, no_entry))[1]).copy_(entries)
    return [TunedParameter(parameter, entries, _values_of(parameter)) for parameter, entries in by_parameter.values()]


def _values_of(parameter: torch.nn.Parameter) -> Tensor:
    """Return the values for Adam, contiguous, of 32 bits or more: the parameter's own memory if it is so, else a copy.

    On a CPU, torch's fused Adam takes values, gradients and averages in the order of their memory, whatever their
    strides are, so all of them must be contiguous.
    """
    return parameter.detach().to(torch.promote_types(parameter.dtype, torch.float32)).contiguous()


def descend(
    block_step: BlockStep,
    parameters: Sequence[TunedParameter],
    inputs: Activations,
    target: Activations,
    options: Options,
) -> None:
    """Run `options.tune_steps_or_default` steps of Adam on the mean of `BlockStep.token_errors`.

    Each step of Adam takes one batch, in turn.

    Raises:
        StoppedError: If the block cannot be differentiated, or a gradient is not finite.
    """
    groups = [{"params": [each.values], "lr": _rate(each, options)} for each in parameters]
    optimiser = torch.optim.Adam(groups, betas=(0.9, 0.95), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda number: 0.5 * (1 + math.cos(math.pi * number / options.tune_steps_or_default))
    )
    scale = LOSS_SCALE if any(each.parameter.itemsize < 4 for each in parameters) else 1.0
    with _requiring_gradients([each.parameter for each in parameters]):
        for number in range(options.tune_steps_or_default):
            batch = number % block_step.batch_count
            gradients = _gradients(block_step, batch, [each.parameter for each in parameters], inputs, target, scale)
            for each, gradient in zip(parameters, gradients, strict=True):
                if not bool(torch.isfinite(gradient).all()):
                    raise StoppedError(f"a gradient contains NaN or infinity in step {number + 1}, batch {batch}")
                # Not in place: two parameters that the block adds to each other get the same gradient tensor, and the
                # entries of an expanded one share memory.
                tuned_gradient = (gradient * each.tuned_entries).to(each.values.dtype).contiguous()
                each.values.grad = tuned_gradient.div_(scale)
            optimiser.step()
            schedule.step()
            for each in parameters:
                if each.is_copy:
                    each.parameter.data.copy_(each.values)


def _gradients(
    block_step: BlockStep,
    batch: int,
    parameters: Sequence[Tensor],
    inputs: Activations,
    target: Activations,
    scale: float,
) -> Sequence[Tensor]:
    """Return the gradients of `scale` times the mean error of a batch; 0 for a parameter that has no effect."""
    try:
        outputs = block_step.call(batch).run(
            _with_copied_buffers(block_step.block), inputs.read(batch), block_step.name
        )
        errors = block_step.token_errors(batch, outputs, target.read(batch))
        if not errors.requires_grad:
            raise StoppedError("its output has no gradient")
        mean = errors.sum() / max(len(errors), 1)
        return torch.autograd.grad(scale * mean, parameters, allow_unused=True, materialize_grads=True)
    except RuntimeError as error:
        raise StoppedError(f"it cannot be differentiated: {str(error).partition(chr(10))[0][:200]}") from error


def _with_copied_buffers(block: torch.nn.Module) -> Callable[..., Any]:
    """Return a function that calls the block with copies of its buffers, since a block may change buffers in place."""
    buffers = dict(block.named_buffers())
    if not buffers:
        return block
    copies = {name: buffer.clone() for name, buffer in buffers.items()}
    return lambda *arguments, **keywords: torch.func.functional_call(block, copies, arguments, keywords)


def _rate(parameter: TunedParameter, options: Options) -> float:
    """Return the learning rate: `tune_rate` times the root mean square of the tuned values that are not 0.

    It is `tune_rate` if all tuned values are 0.
    """
    values = parameter.values[parameter.tuned_entries & (parameter.values != 0)]
    return options.tune_rate * float(values.square().mean().sqrt()) if len(values) else options.tune_rate


@contextmanager
def _requiring_gradients(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Within the context, gradients are enabled, and the parameters require them."""
    before = [each.requires_grad for each in parameters]
    try:
        for each in parameters:
            each.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        for each, required in zip(parameters, before, strict=True):
            each.requires_grad_(required)
