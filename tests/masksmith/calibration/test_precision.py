"""Statistics against sums in float64, for inputs that float32 cannot square."""

import numpy as np
import pytest
import torch
from torch import nn

import masksmith as ms

KINDS = {
    "linear": lambda: nn.Linear(6, 4),
    "convolution": lambda: nn.Conv1d(6, 4, 1),
    "used by its weight": lambda: UsedByWeight(6, 4, 1),
}


class UsedByWeight(nn.Conv1d):
    """A convolution that multiplies without its own forward."""

    def forward(self, inputs):
        return nn.functional.conv1d(inputs, self.weight)


def statistics_of(kind, rows):
    layer = KINDS[kind]().to(rows.dtype)
    inputs = rows if kind == "linear" else rows.T[None]
    return ms.calibrate(nn.Sequential(layer), [inputs], gather=["norms", "gram", "activations"])["0.weight"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("scale", "offset"), [(1e-3, 1e3), (1e25, 0.0), (1e-30, 0.0)])
def test_the_gram_matrix_of_float64_inputs_is_summed_in_float64(kind, scale, offset):
    rows = torch.randn(2000, 6, dtype=torch.float64) * scale + offset
    statistics = statistics_of(kind, rows)
    assert statistics.gram.dtype == np.float64
    np.testing.assert_allclose(statistics.gram, rows.T @ rows, rtol=1e-12, atol=1e-12 * float(rows.square().sum()))
    np.testing.assert_allclose(np.sqrt(statistics.gram.diagonal()), statistics.norms, rtol=1e-12)
    assert np.linalg.eigvalsh(statistics.gram).min() > 0
    assert statistics.activations.dtype == np.float32


@pytest.mark.parametrize("kind", KINDS)
def test_the_gram_matrix_of_small_inputs_is_not_0(kind):
    rows = torch.randn(50, 6) * 1e-25
    statistics = statistics_of(kind, rows)
    np.testing.assert_allclose(statistics.gram, rows.double().T @ rows.double(), rtol=1e-4, atol=1e-55)
