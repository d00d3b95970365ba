"""Sensitivity scores from activations (SiPP, PFP), and the proved error bound of sampling by them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from masksmith._errors import ScoresError

from .operands import as_floats, convert_like, flat_inputs, is_torch, shape_of

Doubles = npt.NDArray[np.float64]


def sipp(weight: Any, activations: Any, *, reduce: Literal["mean", "max"] = "mean", name: str | None = None) -> Any:
    """Score each weight by its share of its neuron's pre-activation, over samples and signs.

    `s_ij = max over sign parts of reduce_x  w_ij a_j(x) / sum_k w_ik a_k(x)`, where weights and activations are split
    by their signs into four parts of one sign each, so that every sum has terms of one sign. Baykal, Liebenwein et al.,
    SiPPing Neural Networks (arXiv 1910.05422): `mean` is their deterministic form, `max` the one that the sampling
    bound holds for. Takes `samples * out * in` multiplications.

    Args:
        weight: `[out, in, *kernel]`.
        activations: Inputs of the layer, `[samples, prod(in, *kernel)]`, one row a sample (a patch, for convolutions).
        reduce: Over the samples.
        name: What messages call the weight.

    Returns:
        Scores of the weight's shape, library and device, in [0, 1].

    Raises:
        ScoresError: If the shapes do not fit, or there are no samples.
    """
    if reduce not in ("mean", "max"):
        raise ScoresError(f"reduce={reduce!r} is neither 'mean' nor 'max'", name=name)
    weight = as_floats(weight)
    flat = flat_inputs(weight, name)
    samples = _samples(activations, flat, name)
    scores = flat * 0
    for of_weights in _parts(flat):
        for of_inputs in _parts(samples):
            share = _mean_share if reduce == "mean" else _max_share
            scores = _larger(scores, of_weights * share(of_weights, of_inputs))
    return scores.reshape(shape_of(weight))


def pfp(weight: Any, activations: Any, *, name: str | None = None) -> Any:
    """Score each input channel by its largest sensitivity in any neuron, for any sample.

    `s_j = max_i max_x` of what `sipp` takes the mean of, and over the kernel: Liebenwein et al., Provable Filter
    Pruning (ICLR 2020). Dropping input channel j drops filter j of the layer before.

    Args:
        weight: `[out, in, *kernel]`.
        activations: Inputs of the layer, `[samples, prod(in, *kernel)]`.
        name: What messages call the weight.

    Returns:
        Scores of the weight's shape, library and device, in [0, 1]; all of a channel hold the channel's score.

    Raises:
        ScoresError: If the shapes do not fit, or there are no samples.
    """
    each = sipp(weight, activations, reduce="max", name=name)
    shape = shape_of(each)
    channels = each.swapaxes(0, 1).reshape(shape[1], -1)
    largest = channels.amax(1) if is_torch(each) else channels.max(1)
    return each * 0 + largest.reshape(1, -1, *(1 for _ in shape[2:]))


@dataclass(frozen=True, slots=True)
class SamplingBound:
    """Error bound for keeping `m` sampled weights of each neuron, with probability `1 - delta`.

    With `a = 2 c log(8 (points + 1) rows / delta) * S`, `S` a neuron's summed sensitivities, sampling `m` times with
    probabilities `s / S` and reweighting moves its pre-activation by at most the share
    `f(m) = ||(a / 3m, sqrt(6a / 3m))|| + a / 3m` of each sign part.

    Attributes:
        sums: `S` of each neuron, `[out]`.
        weight: `a / S`, the same for all.
    """

    sums: Doubles
    weight: float

    def error(self, samples: int) -> Doubles:
        """Return `f(samples)` of each neuron, `[out]`: 0.1 is 10 %; above 1 the bound is void."""
        part = self.weight * self.sums / (3 * samples)
        return np.hypot(part, np.sqrt(6 * part)) + part

    def samples(self, error: float) -> npt.NDArray[np.int64]:
        """Return the smallest number of samples of each neuron, `[out]`, whose error is at most `error`.

        Raises:
            ScoresError: If the error is not positive.
        """
        if not error > 0:
            raise ScoresError(f"error={error} must be positive: sampling is never exact")
        # f(m) <= e holds exactly where a / 3m <= e^2 / (2e + 6).
        return np.ceil(self.weight * self.sums * (2 * error + 6) / (3 * error**2)).astype(np.int64)


def sampling_bound(sensitivities: Any, points: int, *, delta: float = 1e-3, c: float = 3.0) -> SamplingBound:
    """Bound the error of sampling by sensitivities (`sipp` with `reduce="max"`).

    Args:
        sensitivities: `[out, in, *kernel]`, in [0, 1].
        points: Number of samples that the sensitivities were taken over (patches, for convolutions).
        delta: Probability of failure, in (0, 1).
        c: The papers' constant for the tails of the activations' distribution, at least 1.

    Raises:
        ScoresError: If an argument is out of its range.
    """
    if not (points >= 1 and 0 < delta < 1 and c >= 1):
        raise ScoresError(f"points={points}, delta={delta}, c={c}: expected points >= 1, 0 < delta < 1 and c >= 1")
    flat = flat_inputs(as_floats(sensitivities), None)
    matrix = flat.cpu().numpy() if is_torch(flat) else flat
    return SamplingBound(matrix.sum(1, dtype=np.float64), 2 * c * math.log(8 * (points + 1) * len(matrix) / delta))


def _samples(activations: Any, flat: Any, name: str | None) -> Any:
    shape, inputs = shape_of(activations), shape_of(flat)[1]
    if len(shape) != 2 or shape[1] != inputs or shape[0] == 0:
        raise ScoresError(f"activations have shape {list(shape)}, expected [samples, {inputs}]", name=name)
    return convert_like(activations, flat)


def _parts(values: Any) -> Iterator[Any]:
    """Yield the positive part, and the magnitude of the negative part."""
    for part in (values, -values):
        yield part * (part > 0)


def _mean_share(weight: Any, inputs: Any) -> Any:
    """Return `mean_x a_j(x) / z_i(x)`, `[out, in]`, by one matrix product."""
    return _reciprocal(inputs @ weight.T).T @ inputs / len(inputs)


def _max_share(weight: Any, inputs: Any) -> Any:
    """Return `max_x a_j(x) / z_i(x)`, `[out, in]`, sample by sample."""
    largest = weight * 0
    for sample, scale in zip(inputs, _reciprocal(inputs @ weight.T), strict=True):
        largest = _larger(largest, scale[:, None] * sample[None])
    return largest


def _reciprocal(sums: Any) -> Any:
    """Return `1 / sums`, and 0 where a sum is 0."""
    nothing = sums == 0
    return ~nothing / (sums + nothing)


def _larger(one: Any, other: Any) -> Any:
    if not is_torch(one):
        return np.maximum(one, other)
    import torch

    return torch.maximum(one, other)
