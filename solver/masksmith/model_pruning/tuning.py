"""Tunes the kept weights of a pruned block together, to reduce the error of the block's output."""

from __future__ import annotations

import time
from collections.abc import Sequence

from masksmith._errors import PruningError

from .activations import Activations
from .block_step import BlockStep
from .descent import StoppedError, TunedParameter, descend, tuned_parameters
from .options import Options
from .report import Tuning, WeightReport
from .weights import BlockWeight


def tune(
    step: BlockStep,
    weights: Sequence[BlockWeight],
    reports: Sequence[WeightReport],
    inputs: Activations,
    target: Activations,
    options: Options,
) -> Tuning | None:
    """Lower the mean of `BlockStep.token_errors` between outputs and a target, by Adam; the masks are fixed.

    Each step takes one batch, in turn. The learning rate of a parameter is proportional to the root mean square of its
    kept entries, and falls to 0 along a cosine. Matrices without data stay as they are. The weights are restored if the
    error is higher after the steps; if the block cannot be differentiated; or if a gradient or an output is not finite.
    In the last two cases, the result has the reason.

    Returns:
        The result; None if `options.tune_steps_or_default` is 0 or `weights` is empty.

    Raises:
        PruningError: If an output is not finite before the tuning.
    """
    if not options.tune_steps_or_default or not weights:
        return None
    started = time.perf_counter()
    error_before = step.run(inputs, target=target)
    parameters = tuned_parameters(weights, reports)
    copies = [each.parameter.detach().clone() for each in parameters]
    error_after, stop_reason = _tune_and_measure(step, parameters, inputs, target, options)
    if error_after > error_before:
        error_after = error_before
        for each, copy in zip(parameters, copies, strict=True):
            each.parameter.data.copy_(copy)
    return Tuning(options.tune_steps_or_default, error_before, error_after, time.perf_counter() - started, stop_reason)


def _tune_and_measure(
    step: BlockStep, parameters: Sequence[TunedParameter], inputs: Activations, target: Activations, options: Options
) -> tuple[float, str | None]:
    """Tune, and return the error after it and None; or infinity and the reason why the tuning stopped."""
    try:
        descend(step, parameters, inputs, target, options)
        return step.run(inputs, target=target), None
    except StoppedError as error:
        return float("inf"), str(error)
    except PruningError as error:
        return float("inf"), error.reason
