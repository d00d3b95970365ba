"""Rough errors against those of full reconstructions, and against the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import masksmith as ms
from masksmith.updates.operands import read
from masksmith.updates.rough_error import rough_errors
from masksmith.updates.system import ScaledSystem


def problem(dtype, damping, rows=24, inputs=96):
    rng = np.random.default_rng(3)
    mixing = rng.standard_normal((inputs, inputs)) * np.exp(-np.arange(inputs) / 16)[:, None]
    seen = rng.standard_normal((400, inputs)) @ mixing
    weight, gram = rng.standard_normal((rows, inputs)).astype(dtype), seen.T @ seen
    mask = np.asarray(ms.solve(ms.magnitude(weight), "2:4").mask)
    return weight, gram, mask, read(weight, gram, damping, None)


def errors(weight, mask, operands, tolerance):
    scaled = ScaledSystem.of(operands)
    target = (torch.from_numpy(weight).double() * scaled.scale).to(scaled.system.matrix.dtype)
    return rough_errors(operands, scaled, target, torch.from_numpy(mask), tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("damping", [1e-3, 0.01, 1.0])
def test_they_are_those_of_weights_within_the_tolerance(dtype, damping):
    weight, gram, mask, operands = problem(dtype, damping)
    exact = ms.reconstruct(weight, mask, gram, damping=damping, tolerance=0)
    error, masked_error = errors(weight, mask, operands, 1e-6)
    assert error == pytest.approx(exact.error, rel=2e-3)  # the objective is within the tolerance, not its error alone
    assert masked_error == pytest.approx(exact.masked_error, rel=1e-5)
    rough, _ = errors(weight, mask, operands, 0.3)
    assert rough <= masked_error
    shift = exact.weight.astype(float) - weight * mask
    objective = exact.error + operands.diagonal_damping * np.sum(shift**2)
    assert rough <= 1.3 * objective


def test_strips_of_rows_add_up(monkeypatch):
    weight, _, mask, operands = problem(np.float64, 0.01)
    whole = errors(weight, mask, operands, 1e-9)
    monkeypatch.setattr("masksmith.updates.strips.STRIP_ENTRIES", 5 * 96)
    np.testing.assert_allclose(errors(weight, mask, operands, 1e-9), whole, rtol=1e-6)


def test_a_mask_that_drops_nothing_has_no_error():
    weight, _, mask, operands = problem(np.float32, 0.01)
    assert errors(weight, np.ones_like(mask), operands, 0.3) == (0.0, 0.0)


@pytest.mark.parametrize("factor", [2.0**-160, 2.0**160])
def test_they_do_not_depend_on_the_unit_of_the_gram_matrix(factor):
    weight, gram, mask, operands = problem(np.float32, 1.0)
    system = ScaledSystem.of(operands)
    target = torch.from_numpy(weight) * system.scale.float()
    scaled = read(weight, gram * factor, 1.0, None)
    result = rough_errors(scaled, ScaledSystem.of(scaled), target, torch.from_numpy(mask), 0.2)
    assert result == pytest.approx(rough_errors(operands, system, target, torch.from_numpy(mask), 0.2), rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_admm_returns_the_better_mask_in_any_unit(seed):
    rng = np.random.default_rng(seed)
    inputs, weight = rng.standard_normal((300, 96)), rng.standard_normal((16, 96)).astype(np.float32)
    inputs[:, :4] *= 5
    gram = inputs.T @ inputs
    good = ms.admm(weight, gram, "2:4", damping=3.0, max_rounds=60).solution
    options = {"damping": 3.0, "start": good, "max_rounds": 1, "penalty": 0.01}
    expected, update = (ms.admm(weight, gram * factor, "2:4", **options) for factor in (1, 2.0**160))
    assert update.stats["returned"] == expected.stats["returned"] == "start"
    assert update.start_error == pytest.approx(expected.start_error * 2.0**160, rel=1e-5)


@pytest.mark.parametrize("damping", [1e5, 1e9])
def test_they_are_right_under_damping_that_is_far_larger_than_the_gram_matrix(damping):
    weight, gram, mask, operands = problem(np.float32, damping)
    exact = ms.reconstruct(weight, mask, gram, damping=damping, tolerance=0)
    error, masked_error = errors(weight, mask, operands, 1e-6)
    assert masked_error == pytest.approx(exact.masked_error, rel=1e-5)
    assert error == pytest.approx(exact.error, rel=1e-5)
