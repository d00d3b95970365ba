"""Sensitivity scores from activations (SiPP, PFP), and the proved error bound of sampling weights by these scores."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from masksmith._errors import ScoresError
from masksmith._torch_modes import in_full_precision

from .operands import (
    StatisticError,
    as_floats,
    convert_statistic,
    dtype_name,
    flatten_inputs,
    is_torch,
    read_statistic,
    shape_of,
)

Doubles = npt.NDArray[np.float64]
MAX_DRAWS = 2.0**63
"""Numbers of draws must be smaller than this, so that they fit into int64."""


@in_full_precision()
def sipp(weight: Any, activations: Any, *, reduce: Literal["mean", "max"] = "mean", name: str | None = None) -> Any:
    """Score each weight by its share of its neuron's pre-activation.

    The share of weight `w_ij` for an input `a(x)` is `w_ij a_j(x) / sum_k w_ik a_k(x)`, reduced over the samples x. To
    avoid cancellation in the sums, weights and activations are split into their positive parts and the magnitudes of
    their negative parts; the score is the largest of the four shares. The number of multiplications is proportional to
    `samples * out * in`.

    Baykal, Liebenwein et al., SiPPing Neural Networks (arXiv 1910.05422). `reduce="mean"` is their deterministic form;
    the sampling bound holds for `reduce="max"`.

    Args:
        weight: `[out, in, *kernel]`.
        activations: Inputs of the layer, `[samples, prod(in, *kernel)]`; for a convolution, each patch is a sample.
        reduce: How shares are reduced over the samples, `mean` or `max`.
        name: Name of the weight in error messages.

    Returns:
        Scores of the weight's shape, library and device, in [0, 1].

    Raises:
        ScoresError: If weight or activations are no dense array of real numbers; if their shapes do not fit; if there
            are no samples; or if `reduce` is neither `mean` nor `max`.
    """
    if reduce not in ("mean", "max"):
        raise ScoresError(f"reduce={reduce!r} is neither 'mean' nor 'max'", name=name)
    weight = as_floats(weight, name)
    flat = flatten_inputs(weight, name)
    samples = _convert_activations(activations, flat, name)
    scores = flat * 0
    reduce_ratios = _mean_ratios if reduce == "mean" else _max_ratios
    for weight_part in _sign_parts(flat):
        for input_part in _sign_parts(samples):
            scores = _maximum(scores, weight_part * reduce_ratios(weight_part, input_part))
    return scores.reshape(shape_of(weight))


@in_full_precision()
def pfp(weight: Any, activations: Any, *, name: str | None = None) -> Any:
    """Score each input channel by its largest sensitivity: over neurons, samples and positions of the kernel.

    The sensitivity is that of `sipp` with `reduce="max"`. Dropping input channel j drops filter j of the layer before.
    Liebenwein et al., Provable Filter Pruning (ICLR 2020).

    Args:
        weight: `[out, in, *kernel]`.
        activations: Inputs of the layer, `[samples, prod(in, *kernel)]`.
        name: Name of the weight in error messages.

    Returns:
        Scores of the weight's shape, library and device, in [0, 1]; all entries of a channel have the channel's score.

    Raises:
        ScoresError: If weight or activations are no dense array of real numbers; if their shapes do not fit; or if
            there are no samples.
    """
    sensitivities = sipp(weight, activations, reduce="max", name=name)
    shape = shape_of(sensitivities)
    channels = sensitivities.swapaxes(0, 1).reshape(shape[1], -1)
    largest = channels.amax(1) if is_torch(sensitivities) else channels.max(1)
    return sensitivities * 0 + largest.reshape(1, -1, *(1 for _ in shape[2:]))


@dataclass(frozen=True, slots=True)
class SamplingBound:
    """Error bound for drawing `m` weights of each neuron of a layer; it holds with probability `1 - delta`.

    Let `s` be the sensitivities of a neuron's weights, `S` their sum, `a = 2 c log(8 (points + 1) rows / delta) * S`;
    `points`, `delta` and `c` are those of `sampling_bound`, and `rows` is the number of neurons. Weights are drawn m
    times with replacement, with probabilities `s / S`, and reweighted. The relative error of each sign part of the
    neuron's pre-activation is then at most `f(m) = hypot(a / 3m, sqrt(6a / 3m)) + a / 3m`.

    Attributes:
        sums: `S` of each neuron, `[out]`.
        factor: `a / S`, equal for all neurons.
    """

    sums: Doubles
    factor: float

    def error(self, samples: int) -> Doubles:
        """Return the bound `f(m)` of each neuron, `[out]`; a bound above 1 says nothing.

        `samples` is the number of draws `m`, not the number of calibration samples, which is `points`.

        A neuron whose sensitivities are all 0 has the bound 0; with 0 draws, all others have infinity.

        Raises:
            ScoresError: If `samples` is negative or NaN.
        """
        if not samples >= 0:
            raise ScoresError(f"samples={samples} must not be negative")
        if samples == 0:
            return np.where(self.sums == 0, 0.0, np.inf)
        ratio = self.factor * self.sums / (3 * samples)  # a / 3m
        return np.hypot(ratio, np.sqrt(6 * ratio)) + ratio

    def samples(self, error: float) -> npt.NDArray[np.int64]:
        """Return the smallest number of draws `m` of each neuron, `[out]`, whose bound `f(m)` is at most `error`.

        Raises:
            ScoresError: If `error` is not positive and finite, or so small that a neuron needs 2^63 draws or more.
        """
        if not 0 < error < math.inf:
            raise ScoresError(f"error={error} must be positive, since sampling is never exact, and finite")
        # f(m) <= e is equivalent to a / 3m <= e^2 / (2e + 6).
        with np.errstate(over="ignore", invalid="ignore"):
            draws = np.where(self.sums == 0, 0.0, np.ceil(self.factor * self.sums * ((2 + 6 / error) / 3 / error)))
        if not (draws < MAX_DRAWS).all():
            raise ScoresError(f"error={error} is too small: a neuron needs 2^63 draws or more")
        return draws.astype(np.int64)


def sampling_bound(sensitivities: Any, points: int, *, delta: float = 1e-3, c: float = 3.0) -> SamplingBound:
    """Bound the error of sampling weights by their sensitivities (`sipp` with `reduce="max"`).

    Args:
        sensitivities: `[out, in, *kernel]`, in [0, 1].
        points: Number of samples that the sensitivities were computed from (for convolutions: patches).
        delta: Probability that the bound does not hold, in (0, 1).
        c: Constant of the paper for the tails of the distribution of activations, at least 1.

    Raises:
        ScoresError: If `points`, `delta` or `c` is out of its range, or infinite; if `sensitivities` is not of a
            weight's shape; or if a sensitivity is NaN, infinite or negative.
    """
    if not (1 <= points < math.inf and 0 < delta < 1 and 1 <= c < math.inf):
        raise ScoresError(f"points={points}, delta={delta}, c={c}: expected points >= 1, 0 < delta < 1 and c >= 1")
    flat = flatten_inputs(as_floats(sensitivities), None)
    matrix = flat.cpu().numpy() if is_torch(flat) else flat
    if not ((matrix >= 0) & np.isfinite(matrix)).all():
        raise ScoresError("a sensitivity is NaN, infinite or negative; expected numbers from 0 to 1")
    log_term = math.log(8 * (points + 1) * len(matrix) / delta)
    return SamplingBound(matrix.sum(1, dtype=np.float64), 2 * c * log_term)


def _convert_activations(activations: Any, flat: Any, name: str | None) -> Any:
    """Check activations, and convert them to the library, device and dtype of a flat weight."""
    activations = read_statistic(activations, "activations", name)
    shape, inputs = shape_of(activations), shape_of(flat)[1]
    if len(shape) != 2 or shape[1] != inputs or shape[0] == 0:
        raise StatisticError(f"activations have shape {list(shape)}, expected [samples, {inputs}]", name=name)
    return convert_statistic(activations, flat, "activations", name)


def _scaled_rows(matrix: Any) -> Any:
    """Divide each row by its largest magnitude, unless that is 0."""
    largest = abs(matrix).amax(1) if is_torch(matrix) else abs(matrix).max(1)
    return matrix / (largest + (largest == 0))[:, None]


def _sign_parts(values: Any) -> Iterator[Any]:
    """Yield the positive part, and the magnitude of the negative part, each with its rows scaled.

    A row is one neuron's weights, or one sample. A positive factor on a row changes no share, and sums of products of
    scaled rows do not overflow, and seldom underflow.
    """
    for part in (values, -values):
        yield _scaled_rows(part * (part > 0))


def _mean_ratios(weight: Any, inputs: Any) -> Any:
    """Return `mean_x a_j(x) / z_i(x)` with `z_i = sum_k w_ik a_k`, `[out, in]`, by two matrix products."""
    # The division by the number of samples comes before the sum, which large ratios could make overflow: `a_j / z_i`
    # may be large where the weight `w_ij` is 0.
    return (_reciprocal(inputs @ weight.T) / len(inputs)).T @ inputs


def _max_ratios(weight: Any, inputs: Any) -> Any:
    """Return `max_x a_j(x) / z_i(x)` with `z_i = sum_k w_ik a_k`, `[out, in]`, sample by sample."""
    largest = weight * 0
    for sample, reciprocal in zip(inputs, _reciprocal(inputs @ weight.T), strict=True):
        largest = _maximum(largest, reciprocal[:, None] * sample[None])
    return largest


def _reciprocal(sums: Any) -> Any:
    """Return `1 / sums`, and 0 where a sum is 0, or subnormal: the reciprocal of such a sum may be infinite."""
    is_tiny = sums < float(np.finfo(dtype_name(sums)).tiny)
    return ~is_tiny / (sums + is_tiny)


def _maximum(one: Any, other: Any) -> Any:
    if not is_torch(one):
        return np.maximum(one, other)
    import torch

    return torch.maximum(one, other)
