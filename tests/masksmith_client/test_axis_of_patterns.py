"""All patterns of a job have one axis and one treatment of edges: others are refused, never changed silently."""

from typing import Any

import numpy as np
import pytest

import masksmith as ms
from masksmith.patterns import PatternsByTensor
from masksmith_client import InputError
from masksmith_client.submission.prepare import prepare

OUT = ms.NM(2, 4, axis="out")
WEIGHTS = {name: np.ones((32, 48), np.float32) for name in ("h.0.attn.q.weight", "h.0.mlp.up.weight")}


@pytest.mark.parametrize(
    ("pattern", "options"),
    [
        ({"attn": OUT, "mlp": "2:4"}, {}),
        ({"mlp": "2:4", "attn": OUT}, {}),
        ({"*": OUT, "attn": "1:4"}, {}),
        ({"attn": OUT, "mlp": ms.NM(2, 4)}, {}),
        ({"attn": ms.NM(2, 4, ragged="dense"), "mlp": "2:4"}, {}),
        (OUT, {"axis": "in"}),
    ],
)
def test_another_axis_is_refused(pattern: PatternsByTensor, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="must have the same axis and ragged"):
        prepare(WEIGHTS, pattern, **options)


@pytest.mark.parametrize(
    ("pattern", "options"),
    [
        (OUT, {}),
        ("2:4", {"axis": "out"}),
        ({"*": "2:4", "attn": "1:4"}, {"axis": "out"}),
        ({"*": OUT, "attn": OUT}, {}),
    ],
)
def test_one_axis_is_kept(pattern: PatternsByTensor, options: dict[str, Any]) -> None:
    job = prepare(WEIGHTS, pattern, **options)
    assert {each.axis for each in job.patterns.values()} == {"out"}
    assert job.specification.options.axis == "out"


def test_the_axis_of_channels_is_their_own() -> None:
    job = prepare(WEIGHTS, {"attn": ms.Channels(0.5, "out"), "mlp": ms.NM(2, 4)})
    assert [str(pattern) for pattern in job.patterns.values()] == ["channels out 50%", "2:4"]
    assert {each.axis for each in job.patterns.values()} == {"out", "in"}
    assert job.specification.options.axis == "in"


def test_a_budget_has_a_pattern() -> None:
    assert str(prepare(WEIGHTS, "2:4", budget="50%").specification.pattern) == "2:4"
