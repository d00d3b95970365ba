"""The shapes that a benchmark gets from weights."""

from typing import Any

import numpy as np
import pytest

from masksmith_client.submission.benchmarks import prepare_benchmark

INPUTS, OUTPUTS = 64, 256
GPT2 = {
    "h.0.attn.c_attn.weight": (INPUTS, 3 * INPUTS),
    "h.0.mlp.c_fc.weight": (INPUTS, OUTPUTS),
    "h.0.mlp.c_proj.weight": (OUTPUTS, INPUTS),
}
"""Shapes of weights that GPT-2 stores as `[in, out]`, by name."""


def shapes(model: object) -> list[tuple[int, int]]:
    return [(layer.rows, layer.cols) for layer in prepare_benchmark(model, "2:4").layers]


def test_weights_that_are_stored_transposed_are_measured_as_outputs_x_inputs() -> None:
    weights = {name: np.zeros(shape, np.float32) for name, shape in GPT2.items()}
    assert shapes(weights) == [(3 * INPUTS, INPUTS), (OUTPUTS, INPUTS), (INPUTS, OUTPUTS)]


@pytest.mark.torch
def test_the_class_of_a_layer_shows_which_of_its_sizes_are_the_outputs() -> None:
    import torch

    class Conv1D(torch.nn.Module):
        """Stores its weight as the layer of this name in transformers does."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(INPUTS, OUTPUTS))

    model: Any = torch.nn.Sequential(Conv1D(), torch.nn.Linear(OUTPUTS, 2 * INPUTS))
    assert shapes(model) == [(OUTPUTS, INPUTS), (2 * INPUTS, OUTPUTS)]
