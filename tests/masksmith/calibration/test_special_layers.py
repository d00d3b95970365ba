"""Layers whose inputs or weights are not those that hooks see: run again, subclasses, computed weights."""

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

import masksmith as ms

KINDS = ("norms", "gram", "activations", "gradients")


def loss(model, batch):
    return model(batch).square().mean()


class Checkpointed(torch.nn.Sequential):
    """Layers under activation checkpointing."""

    use_reentrant = False

    def forward(self, inputs):
        return checkpoint(super().forward, inputs.requires_grad_(), use_reentrant=self.use_reentrant)


def test_layers_that_a_backward_pass_runs_again_count_once(model, batches):
    expected = ms.calibrate(model, batches, gather=KINDS, loss=loss)
    checkpointed = Checkpointed(*model)
    gathered = ms.calibrate(checkpointed, batches, gather=KINDS, loss=loss)
    for name in expected:
        assert gathered[name].samples == expected[name].samples
        for kind in ("norms", "gram", "activations", "gradient"):
            np.testing.assert_array_equal(getattr(gathered[name], kind), getattr(expected[name], kind))
    checkpointed.use_reentrant = True
    with pytest.raises(ms.ScoresError, match="gradients do not reach layers"):
        ms.calibrate(checkpointed, batches, gather=("gradients",), loss=loss)


class Computed(torch.nn.Linear):
    """A layer whose weight is computed at each use, as that of a masked one."""

    @property
    def weight(self):
        return 2 * self._parameters["weight"]


def test_gradients_of_weights_that_are_computed_at_each_use_are_refused(model, batches):
    model[3].__class__ = Computed
    assert ms.calibrate(model, batches, layers="*")["3.weight"].samples == 60
    with pytest.raises(ms.ScoresError, match=r"'3.weight': gradients do not reach its weight.*calibrate before"):
        ms.calibrate(model, batches, gather=("gradients",), loss=loss, layers="*")


class TenTimes(torch.nn.Linear):
    """Multiplies with ten times its input."""

    def forward(self, inputs):
        return super().forward(10 * inputs)


class ByOperator(torch.nn.Linear):
    """Multiplies without `functional.linear`."""

    def forward(self, inputs):
        return inputs @ self.weight.T


@pytest.mark.parametrize(("kind", "factor"), [(TenTimes, 10), (ByOperator, 1)])
@pytest.mark.parametrize("gather", [("norms",), ("norms", "gradients")])
def test_inputs_of_a_subclass_are_what_its_weight_is_multiplied_with(batches, kind, factor, gather):
    model = torch.nn.Sequential(kind(8, 8), torch.nn.Linear(8, 8))
    gathered = ms.calibrate(model, batches, gather=gather, loss=loss, layers="0")["0.weight"]
    rows = torch.cat(batches).reshape(-1, 8)
    assert gathered.samples == len(rows)
    np.testing.assert_allclose(gathered.norms, factor * np.linalg.norm(rows.double().numpy(), axis=0), rtol=1e-5)
