"""Scores reach the solver as they were computed: float32 would round some of them, to 0 or to infinity at worst."""

import numpy as np
import pytest
import torch
from support.training_loop import WAITING, perceptron

import masksmith as ms
from masksmith_client.training import Sparsifier


@pytest.mark.parametrize(("scale", "dtype"), [(1e-60, torch.float64), (1e60, torch.float64), (2**20, torch.int64)])
def test_scores_that_float32_would_round_are_not_rounded(scale, dtype):
    """The first layer's scores may be float32, which the solver gets as float64 then."""

    def scores(name, weight):
        scaled = (1e9 + weight.detach().double()).mul(scale).to(dtype)
        return weight.detach().abs() if name == "2.weight" else scaled

    seen = []

    def solve(values, pattern):
        seen.append(values.copy())
        return ms.solve(values, pattern)

    model = perceptron()
    sparsifier = Sparsifier(model, "2:4", solve, WAITING, scores=scores)
    for place in (2, 4):
        expected = scores(f"{place}.weight", model[place].parametrizations.weight.original).double().numpy()
        assert np.array_equal(seen[place // 2 - 1], expected)
        assert torch.equal(sparsifier.masks[f"{place}.weight"], torch.from_numpy(ms.solve(expected, "2:4").mask))


@pytest.mark.parametrize("method", ["trainable-thresholds", "prune-and-grow until=5"])
def test_scores_of_float64_weights_are_not_rounded(method):
    seen = []

    def solve(scores, pattern):
        seen.append(scores.copy())
        return ms.solve(scores, pattern)

    model = perceptron().double()
    with torch.no_grad():
        model[2].weight.copy_(1 + torch.rand(32, 32, dtype=torch.float64) * 1e-9)
    expected = model[2].weight.detach().clone()
    Sparsifier(model, "2:4", solve, None, method)
    assert torch.equal(torch.from_numpy(seen[0]), expected)
