"""Axes from what each dimension does: one `out`, one `in`, or nothing."""

import pytest

from masksmith_client.checkpoints.tracing.outputs import Rows
from masksmith_client.checkpoints.tracing.words import axes_from


@pytest.mark.parametrize(
    ("words", "shape", "axes"),
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
def test_axes(words, shape, axes):
    known = axes_from([frozenset(some.split()) for some in words], shape)
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
def test_parts_are_what_is_never_read_together(spans, parts):
    assert Rows(8, spans).parts == parts
