"""Batches of other arguments than the model takes, parameters without a shape, and calls within `torch.vmap`."""

import numpy as np
import pytest
import torch

import masksmith as ms


@pytest.mark.parametrize(
    ("batch", "match"),
    [
        ([torch.randn(5, 8), torch.zeros(5)], r"batch 1 \(list\) does not fit the model: TypeError: .*3 were given"),
        ({"inputs": torch.randn(5, 8)}, "batch 1 of inputs does not fit the model: TypeError"),
    ],
)
def test_a_batch_of_other_arguments_is_named(model, batches, batch, match):
    with pytest.raises(ms.ScoresError, match=match):
        ms.calibrate(model, [batches[0], batch])


def test_an_error_of_a_type_within_the_model_is_raised_as_it_is(model, batches):
    model.append(torch.nn.Module())
    model[4].forward = lambda output: output + "text"
    with pytest.raises(TypeError, match="str"):
        ms.calibrate(model, batches)


def test_lazy_layers_are_refused_until_they_have_run(batches):
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LazyLinear(4))
    with pytest.raises(ms.ScoresError, match=r"'1.weight': its shape is not known before its layer has run"):
        ms.calibrate(model, batches)
    model(batches[0])
    assert sorted(ms.calibrate(model, batches)) == ["0.weight", "1.weight"]


class Mapped(torch.nn.Module):
    """A layer that is called for one row at a time."""

    def __init__(self, transform):
        super().__init__()
        self.layer, self.transform = torch.nn.Linear(8, 8), transform

    def forward(self, inputs):
        return self.transform(self.layer)(inputs.reshape(-1, 8))


@pytest.mark.parametrize("gather", [("norms", "gram"), ("norms", "gram", "activations")])
def test_a_layer_within_vmap_has_the_inputs_of_all_rows(batches, gather):
    mapped = ms.calibrate(Mapped(torch.vmap), batches, gather=gather)["layer.weight"]
    plain = ms.calibrate(Mapped(lambda layer: layer), batches, gather=gather)["layer.weight"]
    assert mapped.samples == plain.samples == 60
    np.testing.assert_allclose(mapped.gram, plain.gram, rtol=1e-5)
