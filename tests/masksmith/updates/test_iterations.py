"""Reconstruction of many rows at once by conjugate gradients, against least squares of each row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.linalg import solve

import masksmith as ms
from masksmith.updates.conjugate_gradients import solve as iterate
from masksmith.updates.supports import is_factorised
from masksmith.updates.system import System

ROWS, INPUTS = 24, 96
"""Large enough that supports of half of the inputs are not factorised."""


def layer(seed=0, dtype=np.float32, rank=200, rows=ROWS, dead=0.0):
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((INPUTS, INPUTS)) * np.exp(-np.arange(INPUTS) / 24)[:, None]
    seen = rng.standard_normal((rank, INPUTS)) @ mixing
    seen[:, rng.random(INPUTS) < dead] = 0
    return rng.standard_normal((rows, INPUTS)).astype(dtype), seen.T @ seen


def objectives(updated, weight, mask, gram, damping):
    """What each row costs, in float64."""
    change = np.asarray(updated, np.float64) - np.asarray(weight, np.float64)
    added = damping * np.diag(gram).mean() * np.sum((change * mask) ** 2, axis=1)
    return np.sum((change @ gram) * change, axis=1) + added


def exact_rows(weight, mask, gram, damping):
    """The minimiser of each row, by one dense solution each."""
    result = np.zeros(weight.shape)
    damped = gram + damping * np.diag(gram).mean() * np.eye(len(gram))
    for new, row, kept in zip(result, weight.astype(np.float64), mask, strict=True):
        if kept.any():
            right = gram[np.ix_(kept, ~kept)] @ row[~kept]
            new[kept] = row[kept] + solve(damped[np.ix_(kept, kept)], right, assume_a="pos")
    return result


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from([np.float64, np.float32]),
    rank=st.sampled_from([3, 60, 400]),
    dead=st.sampled_from([0.0, 0.3]),
    damping=st.sampled_from([1e-7, 1e-3, 0.01, 1.0]),
    density=st.sampled_from([0.5, 0.9]),
    tolerance=st.sampled_from([0.1, 5e-3, 1e-6]),
)
def test_every_row_is_within_the_tolerance(seed, dtype, rank, dead, damping, density, tolerance):
    weight, gram = layer(seed, dtype, rank, dead=dead)
    mask = np.random.default_rng(seed).random(weight.shape) < density
    mask[0], mask[1] = True, False
    update = ms.reconstruct(weight, mask, gram, damping=damping, tolerance=tolerance)
    reached = objectives(update.weight, weight, mask, gram, damping)
    best = objectives(exact_rows(weight, mask, gram, damping), weight, mask, gram, damping)
    masked = objectives(weight * mask, weight, mask, gram, damping)
    rounding = 1e-4 * best + 1e-12 * np.sum((weight @ gram) * weight, axis=1)
    moved = np.any(update.weight != weight * mask, axis=1)
    assert (reached[moved] <= best[moved] * (1 + tolerance) + rounding[moved]).all()
    assert (reached <= masked).all()
    np.testing.assert_array_equal(update.weight[0], weight[0])
    assert not update.weight[~mask].any()
    assert update.error <= update.masked_error


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("magnitude", ["tiny", "huge", "mixed"])
def test_rows_of_every_magnitude_get_the_same_bits(magnitude, dtype):
    weight, gram = layer(dtype=dtype)
    mask = np.random.default_rng(0).random(weight.shape) < 0.5
    most = 100 if dtype == np.float32 else 190
    mixed = np.random.default_rng(1).integers(-most, most, (ROWS, 1))
    exponents = {"tiny": -most, "huge": most, "mixed": mixed}[magnitude]
    expected = ms.reconstruct(weight, mask, gram)
    update = ms.reconstruct(np.ldexp(weight, exponents), mask, gram)
    assert update.stats["iterations"] == expected.stats["iterations"] > 0
    np.testing.assert_array_equal(update.weight, np.ldexp(expected.weight, exponents))


def test_rows_are_iterated_or_factorised_by_cost():
    mask = np.random.default_rng(0).random((ROWS, INPUTS)) < 0.5
    assert not is_factorised(mask).any()
    assert is_factorised(np.tile(mask[:1], (ROWS, 1))).all()
    assert is_factorised(ms.solve(np.random.default_rng(0).random((ROWS, 16)), "2:4").mask).all()
    mixed = np.vstack([mask, np.tile(mask[:1], (ROWS, 1))])
    assert is_factorised(mixed).sum() == ROWS + 1  # row 0 has that support, too


def test_zero_tolerance_and_zero_damping_factorise():
    weight, gram = layer()
    mask = np.random.default_rng(0).random(weight.shape) < 0.5
    for options in ({"tolerance": 0.0}, {"damping": 0.0}):
        stats = ms.reconstruct(weight, mask, gram, **options).stats
        assert (stats["iterations"], stats["factorisations"]) == (0, ROWS)
    stats = ms.reconstruct(weight, mask, gram).stats
    assert stats["iterations"] > 0 == stats["factorisations"]


def test_rows_that_do_not_converge_are_factorised(monkeypatch):
    weight, gram = layer()
    mask = np.random.default_rng(0).random(weight.shape) < 0.5
    monkeypatch.setattr("masksmith.updates.strips.ITERATION_LIMIT", 2)
    done = []
    update = ms.reconstruct(weight, mask, gram, on_progress=lambda rows, total: done.append((rows, total)))
    assert update.stats["factorisations"] == ROWS
    np.testing.assert_allclose(update.weight, exact_rows(weight, mask, gram, 0.01), rtol=1e-4, atol=1e-5)
    assert done[-1] == (ROWS, ROWS)


def test_strips_do_not_change_the_result(monkeypatch):
    weight, gram = layer(dtype=np.float64)
    mask = np.random.default_rng(0).random(weight.shape) < 0.5
    whole = ms.reconstruct(weight, mask, gram, tolerance=1e-13)
    monkeypatch.setattr("masksmith.updates.strips.STRIP_ENTRIES", 5 * INPUTS)
    parts = ms.reconstruct(weight, mask, gram, tolerance=1e-13)
    assert parts.stats["factorisations"] == whole.stats["factorisations"] == 0
    np.testing.assert_allclose(parts.weight, whole.weight, rtol=1e-4, atol=1e-5)
    assert parts.error == pytest.approx(whole.error)
    assert parts.energy == pytest.approx(whole.energy)


def test_a_row_does_not_depend_on_the_rows_that_are_iterated_with_it():
    weight, gram = layer(dtype=np.float64)
    mask = np.random.default_rng(0).random(weight.shape) < 0.5
    # With this damping few iterations are needed: rounding errors do not grow to what is compared.
    together = ms.reconstruct(weight, mask, gram, damping=0.3)
    alone = [ms.reconstruct(weight[[row]], mask[[row]], gram, damping=0.3) for row in range(ROWS)]
    assert len({update.stats["iterations"] for update in alone}) > 1
    np.testing.assert_allclose(
        together.weight, np.concatenate([update.weight for update in alone]), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_after_the_iterations(dtype):
    weight, gram = layer()
    mask = torch.from_numpy(np.random.default_rng(0).random(weight.shape) < 0.5)
    stored = torch.from_numpy(weight).to(dtype)
    update = ms.reconstruct(stored, mask, gram)
    exact = ms.reconstruct(stored, mask, gram, tolerance=0.0)
    assert update.weight.dtype is dtype
    assert update.stats["iterations"] > 0
    assert update.error == pytest.approx(exact.error, rel=2e-2)
    difference = (update.weight.double() - stored.double()).numpy()
    assert update.error == pytest.approx(np.sum((difference @ gram) * difference))


@pytest.mark.parametrize("smallest", [1.0, 0.1])
def test_the_bound_is_above_the_distance_and_closes(smallest):
    rng = np.random.default_rng(0)
    vectors, _ = np.linalg.qr(rng.standard_normal((40, 40)))
    matrix = torch.from_numpy(vectors * np.geomspace(1.0, 50.0, 40) @ vectors.T)
    right = torch.from_numpy(rng.standard_normal((3, 40)))
    exact = torch.linalg.solve(matrix, right.T).T
    least = torch.full((3,), 1000.0, dtype=torch.float64)
    system = System(matrix, right.new_zeros(40, 0), smallest)
    for limit in (0, 1, 5, 15, 60):
        iterates = iterate(system, torch.ones_like(right), right, least, 1e-12, limit)
        distance = ((iterates.solution - exact) @ matrix * (iterates.solution - exact)).sum(1)
        assert (distance <= iterates.bound * (1 + 1e-9) + 1e-18).all()
    assert float(iterates.bound.max()) <= 1e-9
    assert iterates.iterations < 60


def test_iterations_go_on_from_where_they_are():
    weight, gram = layer(rows=3, dtype=np.float64)
    system, _ = System.damped(torch.from_numpy(gram), 5.0, torch.float64)
    supports = torch.from_numpy(weight > 0).double()
    right = torch.from_numpy(weight) * supports
    least = torch.full((3,), 1e6, dtype=torch.float64)
    first = iterate(system, supports, right, least, 1e-14, 300)
    again = iterate(system, supports, right, least, 1e-8, 300, start=first.solution)
    assert again.iterations <= 1 < first.iterations
    assert bool((first.solution[supports == 0] == 0).all())


@pytest.mark.parametrize("damping", [1e-9, 1e-3, 1.0])
def test_the_smallest_eigenvalue_is_bounded_from_below(damping):
    _, gram = layer(rank=50)
    absolute = damping * float(np.diag(gram).mean())
    system, scale = System.damped(torch.from_numpy(gram), absolute, torch.float32)
    damped = (gram + absolute * np.eye(INPUTS)) / np.outer(scale, scale)
    assert system.eigenvalue_bound <= np.linalg.eigvalsh(damped)[0] * (1 + 1e-6) + 1e-13
    assert system.matrix.dtype is (torch.float64 if damping == 1e-9 else torch.float32)
    # A factorisation overwrote the matrix; it was written again.
    np.testing.assert_allclose(system.matrix.numpy(), damped, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("factor", "larger"), [(1.0, True), (0.999, True), (2.0, False), (0.0, False)])
def test_an_eigenvalue_raises_the_bound_only_if_a_factorisation_confirms_it(dtype, factor, larger):
    _, gram = layer(5, rank=400)
    gram = torch.from_numpy(gram)
    system, _ = System.damped(gram, 0.01 * float(gram.diagonal().mean()), dtype)
    smallest = float(torch.linalg.eigvalsh(system.matrix.double())[0])
    before = system.matrix.clone()
    raised = system.with_eigenvalue(factor * smallest)
    assert (raised.eigenvalue_bound > system.eigenvalue_bound) == larger
    assert raised.eigenvalue_bound <= smallest
    assert torch.equal(raised.matrix, before)


def test_the_eigenvalue_of_the_rounds_saves_iterations(monkeypatch):
    weight, gram = layer(5, rank=400)
    counts = []
    for change in (lambda system, eigenvalue: system, System.with_eigenvalue):
        monkeypatch.setattr(System, "with_eigenvalue", change)
        counts.append(ms.admm(weight, gram, "2:4").stats["iterations"])
    assert counts[1] < counts[0]
