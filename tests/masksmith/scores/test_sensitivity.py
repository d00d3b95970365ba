import numpy as np
import pytest
import torch

import masksmith as ms
from masksmith import scores

RNG = np.random.default_rng(11)
WEIGHT = RNG.standard_normal((5, 7))
INPUTS = RNG.standard_normal((30, 7))


def shares(weight, inputs, reduce):
    """Take the definition word by word: split by signs, share out every sum, reduce over samples, take the largest."""
    out, into = weight.shape
    sensitivity = np.zeros((out, into))
    for i in range(out):
        for of_weights in (np.maximum(weight[i], 0), np.maximum(-weight[i], 0)):
            for of_inputs in (np.maximum(inputs, 0), np.maximum(-inputs, 0)):
                terms = of_weights * of_inputs
                sums = terms.sum(1, keepdims=True)
                ratio = np.divide(terms, sums, out=np.zeros_like(terms), where=sums > 0)
                sensitivity[i] = np.maximum(sensitivity[i], ratio.mean(0) if reduce == "mean" else ratio.max(0))
    return sensitivity


@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_sensitivities_follow_their_definition(reduce):
    expected = shares(WEIGHT, INPUTS, reduce)
    np.testing.assert_allclose(ms.sipp(WEIGHT, INPUTS, reduce=reduce), expected, rtol=1e-12)
    sensitivity = ms.sipp(torch.from_numpy(WEIGHT), torch.from_numpy(INPUTS), reduce=reduce)
    np.testing.assert_allclose(sensitivity.numpy(), expected, rtol=1e-12)
    assert 0 <= expected.min() <= expected.max() <= 1


@pytest.mark.parametrize("reduce", ["mean", "max"])
@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_sums_that_underflow_give_no_share_above_one(reduce, convert):
    """A zero weight on the only large input leaves a sum whose reciprocal is infinite in float32."""
    weight = np.array([[1.0, 0.0, 0.5], [1.0, 1.0, 1.0]], np.float32)
    inputs = np.array([[1e-39, 1.0, -1e-40], [1e-30, 1.0, -1e-40], [2e-30, 1.0, 0.0]], np.float32)
    shares_of_weights = np.asarray(ms.sipp(convert(weight), convert(inputs), reduce=reduce))
    assert 0 <= shares_of_weights.min() <= shares_of_weights.max() <= 1
    # The third weight alone makes the negative sums of the first two samples: in the second neuron, too.
    np.testing.assert_allclose(shares_of_weights[:, 2], 2 / 3 if reduce == "mean" else 1.0, rtol=1e-6)


def test_filters_take_the_largest_of_their_channel():
    weight = RNG.standard_normal((3, 2, 2, 2))
    inputs = RNG.standard_normal((20, 8))
    each = shares(weight.reshape(3, 8), inputs, "max").reshape(weight.shape)
    for kind in (np.asarray, torch.from_numpy):
        sensitivity = np.asarray(scores.pfp(kind(weight), kind(inputs)))
        for channel in range(2):
            np.testing.assert_allclose(sensitivity[:, channel], each[:, channel].max(), rtol=1e-12)


def test_the_bound_is_the_papers_formula():
    sensitivities = shares(WEIGHT, INPUTS, "max")
    bound = scores.sampling_bound(sensitivities, 30, delta=0.01, c=3)
    a = 2 * 3 * np.log(8 * 31 * 5 / 0.01) * sensitivities.sum(1)
    for m in (1, 10, 1000):
        expected = np.linalg.norm([a / (3 * m), np.sqrt(6 * a / (3 * m))], axis=0) + a / (3 * m)
        np.testing.assert_allclose(bound.error(m), expected, rtol=1e-12)


@pytest.mark.parametrize("error", [0.01, 0.3, 2.0])
def test_the_least_samples_keep_the_error_and_one_less_does_not(error):
    bound = scores.sampling_bound(shares(WEIGHT, INPUTS, "max"), 30)
    samples = bound.samples(error)
    for row, m in enumerate(samples):
        assert bound.error(int(m))[row] <= error * (1 + 1e-12)
        assert bound.error(int(m) - 1)[row] > error


def test_a_neuron_without_sensitivities_needs_no_draws():
    bound = scores.sampling_bound(np.array([[0.0, 0.0], [0.5, 0.5]]), 30)
    assert bound.samples(0.5)[0] == 0 < bound.samples(0.5)[1]
    np.testing.assert_array_equal(bound.error(0), [0.0, np.inf])
    assert bound.error(10)[0] == 0
    np.testing.assert_array_equal(scores.sampling_bound(np.zeros((3, 2)), 30).samples(1e-300), [0, 0, 0])


@pytest.mark.parametrize(
    ("sensitivity", "options", "reason"),
    [
        (np.nan, {}, "NaN, infinite or negative"),
        (-0.5, {}, "NaN, infinite or negative"),
        (0.5, {"points": np.inf}, "points=inf"),
        (0.5, {"c": np.inf}, "c=inf"),
    ],
)
def test_a_bound_that_would_be_nan_is_refused(sensitivity, options, reason):
    with pytest.raises(ms.ScoresError, match=reason):
        scores.sampling_bound(np.array([[0.0, 0.0], [sensitivity, 0.5]]), **{"points": 30, **options})


def test_sampling_really_errs_less_than_the_bound():
    weight, inputs = np.abs(WEIGHT), np.abs(INPUTS)
    sensitivities = shares(weight, inputs, "max")
    bound = scores.sampling_bound(sensitivities, len(inputs))
    draws = 4000
    exact = inputs @ weight[0]
    probability = sensitivities[0] / sensitivities[0].sum()
    counts = np.random.default_rng(0).multinomial(draws, probability)
    sampled = inputs @ (weight[0] * counts / (draws * probability))
    assert np.abs(sampled / exact - 1).max() <= bound.error(draws)[0] < 1
