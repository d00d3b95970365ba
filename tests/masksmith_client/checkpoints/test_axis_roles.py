"""Axes from the roles of dimensions, and parts of outputs, of traced products."""

import pytest
import torch

from masksmith.layouts.convolutions import GROUPED_TRANSPOSED
from masksmith_client.checkpoints.tracing.axis_roles import axes_from
from masksmith_client.checkpoints.tracing.layer_classes import extended_by_layer_classes
from masksmith_client.checkpoints.tracing.observations import Observations
from masksmith_client.checkpoints.tracing.outputs import OutputSpans
from masksmith_client.checkpoints.tracing.watcher import BOTH_WAYS, DEPTHWISE, Use, Watcher


@pytest.mark.parametrize(
    ("roles", "shape", "axes"),
    [
        (["out", "in"], (8, 4), "out in"),
        (["", "in", "out"], (3, 8, 4), "stack in out"),
        (["", "in"], (1, 4), "out in"),
        (["out", ""], (8, 1), "out in"),
        (["out", "in", "kernel", "kernel"], (8, 3, 1, 1), "out in kernel kernel"),
        (["out", "in", "in", "in"], (8, 3, 2, 2), "out in kernel kernel"),
        (["in", "out", "out"], (8, 4, 2), "in stack out"),
        (["stack out", "in"], (8, 4), "out in"),
        (["out", "in kernel"], (8, 12), "out in"),
        (["in", "in", "out"], (4, 2, 8), None),
        (["in out", "in"], (8, 4), None),
        (["stack in", "out"], (8, 4), None),
        (["", "in"], (3, 4), None),
        (["out", "out"], (3, 4), None),
    ],
)
def test_axes(roles, shape, axes):
    known = axes_from([frozenset(some.split()) for some in roles], shape)
    assert known == (None if axes is None else tuple(axes.split()))


@pytest.mark.parametrize(
    ("spans", "parts"),
    [
        ({(0, 4), (4, 6), (6, 8)}, (4, 2, 2)),
        ({(0, 3), (2, 4), (4, 8), (5, 6)}, (4, 4)),
        ({(0, 8)}, ()),
        ({(0, 4), (4, 8), (0, 8)}, ()),
        ({(0, 4), (5, 8)}, ()),
        ({(0, 4), (4, 7)}, ()),
        ({(1, 4), (4, 8)}, ()),
        (set(), ()),
    ],
)
def test_parts_are_rows_that_are_never_used_together(spans, parts):
    assert OutputSpans(8, spans).parts == parts


def halves(result):
    return [half * 2 for half in result.split(result.shape[-1] // 2, dim=-1)]


def test_outputs_are_split_along_the_last_dimension_of_a_product_with_the_weight_on_its_right():
    weight, batch = torch.ones(3, 6, 8), torch.ones(3, 5, 6)
    with Watcher({"w": weight}) as watcher:
        halves(torch.bmm(batch, weight))
    assert watcher.uses["w"].certain_axes == ("stack", "in", "out")
    assert watcher.outputs.parts() == {"w": (4, 4)}


def test_one_matrix_on_the_right_of_a_grouped_product_has_no_stack():
    weight, batch = torch.ones(16, 32), torch.ones(3, 5, 16)
    with Watcher({"w": weight}) as watcher:
        torch._grouped_mm(batch, weight, offs=torch.tensor([8, 16, 32], dtype=torch.int32))
    assert watcher.uses["w"].certain_axes == ("in", "out")


@pytest.mark.parametrize("stacked", [False, True])
def test_a_split_of_the_batch_is_none_of_outputs_where_the_weight_is_on_the_left(stacked):
    """The batch has as many columns as the product has outputs."""
    weight, batch = torch.ones(3, 8, 6), torch.ones(3, 6, 8)
    with Watcher({"w": weight}) as watcher:
        halves(torch.bmm(weight, batch) if stacked else torch.addmm(torch.ones(8, 8), weight[0], batch[0]))
    assert watcher.uses["w"].certain_axes == ("stack", "out", "in")
    assert watcher.outputs.parts() == {}


@pytest.mark.parametrize(
    ("layer", "reason", "reason_of_class"),
    [
        (torch.nn.ConvTranspose2d(8, 2, 3, groups=2), None, GROUPED_TRANSPOSED),
        (torch.nn.ConvTranspose2d(8, 16, 3, groups=8), DEPTHWISE, DEPTHWISE),
        (torch.nn.Conv2d(8, 16, 3, groups=8), DEPTHWISE, DEPTHWISE),
        (torch.nn.Conv2d(8, 2, 3, groups=2), None, None),
    ],
)
def test_a_convolution_is_depthwise_if_each_group_has_one_input(layer, reason, reason_of_class):
    weight = layer.weight.detach()
    with Watcher({"weight": weight}) as watcher:
        torch.func.functional_call(layer, {"weight": weight}, torch.ones(1, 8, 6, 6))
    assert watcher.uses["weight"].dense_reason == reason
    by_class = extended_by_layer_classes(Observations({}, {}, {}), torch.nn.Sequential(layer))
    assert by_class.reasons == ({} if reason_of_class is None else {"0.weight": reason_of_class})
    # No layout describes a transposed convolution of several groups.
    assert ("0.weight" in by_class.axes) is isinstance(layer, torch.nn.Conv2d)
    assert (watcher.uses["weight"].certain_axes is not None) is isinstance(layer, torch.nn.Conv2d)


def test_axes_that_are_not_certain_are_not_said_to_be_both():
    assert Use({("out", "in"), None}).dense_reason is None
    assert Use({("out", "in"), ("in", "out"), None}).dense_reason == BOTH_WAYS
