"""The preconditioner against dense inverses, and what it saves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from masksmith.updates.conjugate_gradients import solve
from masksmith.updates.preconditioner import (
    INPUTS_PER_COLUMN,
    MAX_COLUMNS,
    MAX_RATIO,
    low_rank_factor,
    precondition,
    small_inverses,
)
from masksmith.updates.system import System


def gram(inputs=96, seed=0):
    """A Gram matrix with a few large eigenvalues, as of activations: number i is about 1 / i^1.2."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((inputs, inputs)) * (1 + np.arange(inputs))[:, None] ** -0.6
    seen = rng.standard_normal((4 * inputs, inputs)) @ mixing
    return torch.from_numpy(seen.T @ seen)


def damped(matrix, dtype=torch.float64):
    return System.damped(matrix, 0.01 * float(matrix.diagonal().mean()), dtype)[0]


def preconditioner(factor):
    return torch.eye(len(factor), dtype=factor.dtype) + factor @ factor.T


def test_the_factor_has_the_largest_eigenvalues_of_the_matrix():
    system = damped(gram(320))
    columns = 320 // INPUTS_PER_COLUMN
    largest = torch.linalg.eigvalsh(system.matrix)[-columns:]
    own = torch.linalg.eigvalsh(preconditioner(system.factor))[-columns:]
    assert system.factor.shape == (320, columns)
    torch.testing.assert_close(own, largest / largest[0], rtol=5e-2, atol=0)


def test_a_matrix_of_low_rank_has_a_finite_factor():
    seen = torch.randn(3, 320, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for dtype in (torch.float32, torch.float64):
        factor = low_rank_factor(damped(seen.T @ seen).matrix.to(dtype))
        ratio = float(torch.linalg.eigvalsh(preconditioner(factor.double()))[-1])
        assert ratio == pytest.approx(min(MAX_RATIO, ratio))
        assert ratio > 100


def test_the_same_matrix_has_the_same_factor():
    matrix = damped(gram()).matrix
    random_state = torch.get_rng_state()
    assert torch.equal(low_rank_factor(matrix), low_rank_factor(matrix.clone()))
    assert torch.equal(random_state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("inputs", "columns"), [(1, 0), (31, 0), (32, 1), (200, 6), (32 * MAX_COLUMNS, MAX_COLUMNS), (2100, MAX_COLUMNS)]
)
def test_the_number_of_columns_follows_the_inputs(inputs, columns):
    factor = low_rank_factor(damped(gram(inputs)).matrix if inputs < 2000 else torch.eye(inputs))
    assert factor.shape == (inputs, columns)
    assert bool(torch.isfinite(factor).all())


@pytest.mark.parametrize("columns", [0, 1, 3])
def test_each_row_is_multiplied_by_the_inverse_on_its_support(columns):
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(40, columns, generator=generator, dtype=torch.float64)
    supports = (torch.rand(5, 40, generator=generator) < 0.5).double()
    supports[0], supports[1] = 0, 1
    residual = torch.randn(5, 40, generator=generator, dtype=torch.float64) * supports
    coefficients, squared_norms = precondition(residual, factor, small_inverses(factor, supports))
    for row in range(5):
        support = supports[row].bool()
        inverse = torch.linalg.inv(preconditioner(factor)[support][:, support])
        expected = inverse @ residual[row, support]
        torch.testing.assert_close((residual[row] - factor @ coefficients[row])[support], expected)
        torch.testing.assert_close(squared_norms[row], residual[row, support] @ expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bound_on_the_eigenvalues_holds_for_the_preconditioned_matrix(dtype):
    system = damped(gram(320), dtype)
    matrix, factor = system.matrix.double(), system.factor.double()
    smallest = float(torch.linalg.eigvalsh(matrix - system.eigenvalue_bound * preconditioner(factor))[0])
    assert smallest >= -1e-6
    assert factor.shape[1] > 0
    raised = system.with_eigenvalue(float(torch.linalg.eigvalsh(matrix)[0]))
    raised_smallest = float(torch.linalg.eigvalsh(matrix - raised.eigenvalue_bound * preconditioner(factor))[0])
    assert raised_smallest >= -1e-6


def test_a_preconditioner_that_is_too_large_for_a_bound_is_not_confirmed():
    system = replace(damped(gram(320)), eigenvalue_bound=1e-6)
    smallest = float(torch.linalg.eigvalsh(system.matrix)[0])
    assert system.with_eigenvalue(smallest).eigenvalue_bound > 0.5 * smallest
    too_large = replace(system, factor=100 * system.factor)
    assert too_large.with_eigenvalue(smallest) is too_large


def test_it_saves_iterations_and_changes_no_result():
    system = damped(gram(384))
    generator = torch.Generator().manual_seed(0)
    supports = (torch.rand(8, 384, generator=generator) < 0.5).double()
    right_side = torch.randn(8, 384, generator=generator, dtype=torch.float64) @ system.matrix * supports
    objective = torch.full((8,), float(right_side.square().sum()), dtype=torch.float64)
    plain_system = replace(system, factor=system.factor[:, :0])
    results = [solve(each, supports, right_side, objective, 1e-9, 1000) for each in (system, plain_system)]
    assert 1.2 * results[0].iterations < results[1].iterations
    torch.testing.assert_close(results[0].solution, results[1].solution, rtol=0, atol=2e-3)
    assert not results[0].solution[supports == 0].any()
