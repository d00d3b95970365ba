"""Channels: whole rows and columns, linear and convolutional."""

from __future__ import annotations

import numpy as np
import pytest

import masksmith as ms
from masksmith.whole_tensor import passes

RNG = np.random.default_rng(9)


def largest(sums: np.ndarray, keep: int) -> np.ndarray:
    kept = np.zeros(len(sums), bool)
    kept[np.argsort(-sums, kind="stable")[:keep]] = True
    return kept


@pytest.mark.parametrize("shape", [(20, 30), (12, 10, 3), (12, 10, 3, 2)])
@pytest.mark.parametrize("axis", ["in", "out"])
@pytest.mark.parametrize("kind", ["gauss", "ties"])
def test_the_largest_sums_are_kept(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], axis: str, kind: str
) -> None:
    monkeypatch.setattr(passes, "PANEL_ENTRIES", 100)
    scores = np.abs(RNG.standard_normal(shape))
    scores = np.ones(shape) if kind == "ties" else scores
    pattern = ms.Channels(0.4, axis)
    solution = ms.solve(scores, pattern)
    along = 0 if axis == "out" else 1
    sums = np.moveaxis(scores, along, 0).reshape(shape[along], -1).sum(1)
    kept = largest(sums, int(0.4 * shape[along] + 0.5))
    assert (np.moveaxis(solution.mask, along, 0).reshape(shape[along], -1) == kept[:, None]).all()
    assert (solution.status, solution.gap) == ("optimal", 0.0)
    assert solution.objective == pytest.approx(scores[solution.mask].sum())
    assert solution.kept == solution.mask.sum()
    assert ms.verify(solution.mask, pattern)


@pytest.mark.parametrize("axis", ["in", "out"])
def test_the_verifier_sees_broken_channels(axis: str) -> None:
    pattern = ms.Channels(0.5, axis)
    mask = ms.solve(RNG.random((4, 6)), pattern).mask
    inside = tuple(int(places[0]) for places in np.nonzero(mask))
    mask[inside] = False
    assert f"{axis}put channel {inside[axis == 'in']} is only partly kept" in ms.verify(mask, pattern).message
    assert "instead of" in ms.verify(np.ones((4, 6), bool), pattern).message


def test_the_axis_may_be_named_in_the_text_or_beside_it() -> None:
    assert ms.parse("channels 50%") == ms.Channels(0.5, "in") == ms.parse("channels in 50%")
    assert ms.parse("channels 50%", axis="out") == ms.Channels(0.5, "out") == ms.parse("channels out 50%")
    assert str(ms.Channels(0.125, "out")) == "channels out 12.5%"
    with pytest.raises(ms.PatternError, match="contradicts"):
        ms.parse("channels in 50%", axis="out")
    with pytest.raises(ms.PatternError, match="axis"):
        ms.Channels(0.5, "up")  # type: ignore[arg-type]


def test_a_density_that_keeps_no_channel_is_refused() -> None:
    with pytest.raises(ms.PatternError, match="5% of 4 input channels rounds to none"):
        ms.solve(np.ones((8, 4)), "channels 5%")
