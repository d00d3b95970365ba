"""Reconstruction: the optimum on the support, and an error that never rises."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import masksmith as ms
from masksmith.updates.supports import batches


def layer(rows=12, inputs=16, samples=200, seed=0, dtype=np.float64):
    """A weight, and a Gram matrix of inputs that are correlated and of unequal size."""
    rng = np.random.default_rng(seed)
    inputs_seen = rng.standard_normal((samples, inputs)) @ rng.standard_normal((inputs, inputs))
    weight = rng.standard_normal((rows, inputs)).astype(dtype)
    return weight, inputs_seen, inputs_seen.T @ inputs_seen


def output_error(updated, weight, gram):
    difference = np.asarray(updated, np.float64) - np.asarray(weight, np.float64)
    return float(np.sum((difference @ gram) * difference))


@st.composite
def problems(draw):
    """Small layers with masks of any kind, inputs that depend on each other, and dead inputs."""
    rows, inputs, samples = draw(st.integers(1, 6)), draw(st.integers(1, 9)), draw(st.integers(1, 12))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    seen = rng.integers(-3, 4, (samples, inputs)) * draw(st.sampled_from([1.0, 1e-6, 1e6]))
    seen[:, rng.random(inputs) < draw(st.sampled_from([0, 0.3]))] = 0
    dtype = draw(st.sampled_from([np.float64, np.float32, np.float16]))
    weight = rng.standard_normal((rows, inputs)).astype(dtype)
    mask = rng.random((rows, inputs)) < draw(st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]))
    return weight, mask, seen.T @ seen, draw(st.sampled_from([1e-6, 0.01, 1.0, 100.0]))


def exact_error(updated, weight, gram):
    """The error as a fraction: no rounding at all."""
    difference = [
        [Fraction(float(a)) - Fraction(float(b)) for a, b in zip(new, old, strict=True)]
        for new, old in zip(updated, weight, strict=True)
    ]
    gram = [[Fraction(float(value)) for value in row] for row in gram]
    return sum(
        row[j] * gram[j][k] * row[k] for row in difference for j in range(len(row)) if row[j] for k in range(len(row))
    )


@settings(max_examples=150, deadline=None)
@given(problems())
def test_the_error_never_rises(problem):
    weight, mask, gram, damping = problem
    update = ms.reconstruct(weight, mask, gram, damping=damping)
    masked = exact_error(weight * mask, weight, gram)
    result = exact_error(update.weight, weight, gram)
    # What is decided in float64 may differ from the exact comparison by the rounding of float64.
    assert result <= masked * Fraction(1 + 2**-45)
    assert update.error <= update.masked_error
    assert update.weight.dtype == weight.dtype
    assert not update.weight[~mask].any()


@pytest.mark.parametrize("density", [0.25, 0.5, 0.75])
def test_without_damping_it_is_least_squares(density):
    weight, seen, gram = layer()
    mask = np.random.default_rng(1).random(weight.shape) < density
    update = ms.reconstruct(weight, mask, gram, damping=0.0)
    for row, kept, new in zip(weight, mask, update.weight, strict=True):
        expected, *_ = np.linalg.lstsq(seen[:, kept], seen @ row, rcond=None)
        np.testing.assert_allclose(new[kept], expected, rtol=1e-7, atol=1e-9)
    assert update.error == pytest.approx(output_error(update.weight, weight, gram))
    assert update.masked_error == pytest.approx(output_error(weight * mask, weight, gram))
    assert update.energy == pytest.approx(float(np.sum((seen @ weight.T) ** 2)))


def test_rows_of_hybrid_masks_are_least_squares():
    """Rows of one mask have supports of very different sizes: dense blocks and 2:4 ones."""
    weight, seen, gram = layer()
    mask = ms.solve(np.abs(weight), "hybrid 4x8 2:4 50%").mask
    update = ms.reconstruct(weight, mask, gram, damping=0.0)
    for row, kept, new in zip(weight, mask, update.weight, strict=True):
        expected, *_ = np.linalg.lstsq(seen[:, kept], seen @ row, rcond=None)
        assert new[kept] == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert not update.weight[~mask].any()


def test_damped_weights_are_where_the_damped_error_is_level():
    weight, _, gram = layer()
    mask = np.random.default_rng(2).random(weight.shape) < 0.5
    update = ms.reconstruct(weight, mask, gram, damping=0.3, tolerance=0.0)
    slope = (update.weight - weight) @ gram + 0.3 * np.diag(gram).mean() * (update.weight - weight * mask)
    np.testing.assert_allclose(slope[mask], 0, atol=1e-8 * np.abs(gram).max())


def test_more_damping_stays_closer_to_the_masked_weights():
    weight, _, gram = layer()
    mask = np.random.default_rng(3).random(weight.shape) < 0.5
    updates = [ms.reconstruct(weight, mask, gram, damping=damping, tolerance=0.0) for damping in (0.0, 0.1, 1.0, 1e9)]
    distances = [np.linalg.norm(update.weight - weight * mask) for update in updates]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-6
    errors = [update.error for update in updates]
    assert errors == sorted(errors)


def test_rows_that_share_a_support_share_a_factor():
    weight, _, gram = layer(rows=64)
    mask = np.tile(np.arange(16) % 4 < 2, (64, 1))
    mask[::2] = ~mask[::2]
    assert ms.reconstruct(weight, mask, gram).stats["factorisations"] == 2


def test_batches_hold_every_row_once_and_stay_small():
    rng = np.random.default_rng(0)
    mask = np.repeat(rng.random((40, 30)) < rng.random((40, 1)), rng.integers(1, 9, 40), axis=0)
    budget = 8 * 30 * 30 * 3
    result = list(batches(mask, budget))
    assert sorted(row for batch in result for row in batch.rows.ravel()) == list(range(len(mask)))
    for batch in result:
        supports, each = batch.rows.shape
        assert (mask[batch.rows] == mask[batch.rows[:, :1]]).all()
        assert batch.max_kept == mask[batch.rows].sum(-1).max()
        assert supports == 1 or supports * 8 * (batch.max_kept**2 + each * 30) <= budget
    assert len(result) > 3


def test_small_batches_change_nothing(monkeypatch):
    weight, _, gram = layer(rows=30)
    mask = np.random.default_rng(4).random(weight.shape) < 0.5
    together = ms.reconstruct(weight, mask, gram).weight
    monkeypatch.setattr("masksmith.updates.supports.batches.__defaults__", (1,))
    np.testing.assert_allclose(ms.reconstruct(weight, mask, gram).weight, together, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_torch_goes_in_and_comes_out(dtype):
    weight, _, gram = layer()
    tensor = torch.from_numpy(weight).to(dtype).requires_grad_()
    solution = ms.solve(ms.magnitude(tensor), "2:4")
    update = ms.reconstruct(tensor, solution.mask, torch.from_numpy(gram))
    assert update.weight.dtype is dtype
    assert not update.weight.requires_grad
    assert ms.verify(update.weight != 0, "<=2:4")
    assert update.error < update.masked_error
    assert update.gain > 1


def test_a_convolution_is_a_matrix_in_its_own_order():
    rng = np.random.default_rng(0)
    convolution = torch.nn.Conv2d(4, 8, 3, bias=False)
    images = torch.from_numpy(rng.standard_normal((6, 4, 9, 9), dtype=np.float32))
    gram = ms.calibrate(convolution, [images], gather=("gram",))["weight"].gram
    mask = ms.solve(ms.magnitude(convolution.weight), "2:4").mask
    update = ms.reconstruct(convolution.weight, mask, gram)
    with torch.no_grad():
        expected = convolution(images)
        convolution.weight.copy_(update.weight)
        squared = float((convolution(images) - expected).double().square().sum())
    assert squared == pytest.approx(update.error, rel=1e-3)
    assert update.error < update.masked_error


def test_progress_counts_rows_and_may_stop():
    weight, _, gram = layer()
    mask = np.random.default_rng(5).random(weight.shape) < 0.5
    seen = []
    ms.reconstruct(weight, mask, gram, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (12, 12)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ms.reconstruct(weight, mask, gram, on_progress=stop)


def test_inputs_that_never_moved_leave_the_masked_weights():
    weight = np.ones((2, 4))
    mask = np.array([[True, True, False, False]] * 2)
    update = ms.reconstruct(weight, mask, np.zeros((4, 4)), damping=0.0)
    np.testing.assert_array_equal(update.weight, weight * mask)
    assert (update.error, update.masked_error, update.gain, update.relative_error) == (0.0, 0.0, 1.0, 0.0)


GRAM = np.eye(4)
MASK = np.ones((2, 4), bool)


@pytest.mark.parametrize(
    ("weight", "mask", "gram", "options", "message"),
    [
        (np.ones(4), MASK, GRAM, {}, r"shape \[4\] is not that of a weight"),
        (np.ones((2, 4), np.int8), MASK, GRAM, {}, "dtype int8 cannot hold updated weights"),
        (np.full((2, 4), np.nan), MASK, GRAM, {}, r"weight holds nan at \[0, 0\]"),
        (np.ones((2, 4)), MASK[:1], GRAM, {}, r"mask has shape \[1, 4\], the weight has \[2, 4\]"),
        (np.ones((2, 4)), MASK * 2, GRAM, {}, "mask holds 2; expected True and False"),
        (np.ones((2, 4)), MASK, np.eye(3), {}, r"gram has shape \[3, 3\], a weight of \[2, 4\] needs \[4, 4\]"),
        (np.ones((2, 4)), MASK, np.full((4, 4), np.inf), {}, r"gram holds inf at \[0, 0\]"),
        (np.ones((2, 4)), MASK, -GRAM, {}, r"gram holds -1 at \[0, 0\]"),
        (np.ones((2, 4)), MASK, np.triu(np.ones((4, 4))), {}, r"gram is not symmetric at \[0, 1\]"),
        (
            np.ones((2, 4)),
            MASK,
            np.ones((4, 4)),
            {"damping": 0.0},
            r"not positive definite on the support of a row; .* \(row 0\)",
        ),
        (np.ones((2, 4)), MASK, GRAM, {"damping": -1.0}, r"damping=-1.0 is not a number from 0 to 1e\+09"),
        (np.ones((2, 4)), MASK, GRAM, {"damping": 1e300}, r"damping=1e\+300 is not a number from 0"),
        (np.ones((2, 4)), MASK, GRAM, {"tolerance": 1.0}, "tolerance=1.0 must be at least 0 and below 1"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(weight, mask, gram, options, message):
    with pytest.raises(ms.UpdateError, match=f"tensor 'encoder.weight': .*{message}"):
        ms.reconstruct(weight, mask, gram, name="encoder.weight", **options)


@pytest.mark.parametrize("threads", [0, -1])
def test_fewer_than_one_thread_is_refused(threads):
    weight, mask, gram = np.ones((2, 4), np.float32), np.tile([True, False], (2, 2)), np.eye(4)
    options = {"threads": threads, "name": "a"}
    for update in (
        lambda: ms.reconstruct(weight, mask, gram, **options),
        lambda: ms.refine(weight, mask, gram, "2:4", **options),
        lambda: ms.admm(weight, gram, "2:4", **options),
    ):
        with pytest.raises(ms.UpdateError, match=rf"'a': threads={threads} is not at least 1"):
            update()


@pytest.mark.parametrize("tolerance", [0.0, 1e-3])
def test_rows_that_keep_their_masked_weights_are_rounded_as_the_others(tolerance):
    weight, _, _ = layer()
    gram, mask = np.eye(16), np.ones(weight.shape, bool)  # independent inputs: no update decreases the error
    mask[:6, ::2] = False
    update = ms.reconstruct(weight, mask, gram, tolerance=tolerance, rounded_to="bfloat16")
    updated = torch.from_numpy(update.weight)
    assert update.stats["rows_as_they_were"] == 12
    assert torch.equal(updated.bfloat16().double(), updated)
    assert update.error == pytest.approx(output_error(update.weight, weight, gram), rel=1e-9)
    assert update.masked_error == update.error


@pytest.mark.parametrize("tolerance", [0, 0.01])
@pytest.mark.parametrize("is_orthogonal", [False, True])
def test_the_error_of_masked_weights_is_that_of_rounded_ones(tolerance, is_orthogonal):
    weight, _, gram = layer(dtype=np.float32)
    gram = np.eye(16) if is_orthogonal else gram
    rounded = torch.from_numpy(weight).bfloat16().float().numpy()
    for mask in (np.ones_like(weight, bool), ms.solve(ms.magnitude(weight), "2:4").mask):
        update = ms.reconstruct(weight, mask, gram, tolerance=tolerance, rounded_to="bfloat16")
        assert update.masked_error == pytest.approx(output_error(rounded * mask, weight, gram), rel=1e-9)
        assert update.error <= update.masked_error
        assert update.gain >= 1


@pytest.mark.parametrize("method", ["reconstruct", "admm"])
def test_a_weight_that_overflows_in_the_dtype_that_it_is_rounded_to_is_refused(method):
    weight, _, gram = layer()
    weight[3, 4] = 1e5
    operands = (weight, weight != 0, gram) if method == "reconstruct" else (weight, gram, "2:4")
    with pytest.raises(ms.WeightError, match="weight holds 100000, which overflows in float16"):
        getattr(ms, method)(*operands, rounded_to="float16")


@pytest.mark.parametrize("factor", [2.0**-170, 2.0**160])
def test_damping_of_factorised_supports_has_the_range_of_float64(factor):
    weight, _, gram = layer(samples=8)  # singular without damping
    mask = np.asarray(ms.solve(ms.magnitude(weight), "2:4").mask)
    expected = ms.reconstruct(weight, mask, gram, tolerance=0, damping=0.1)
    update = ms.reconstruct(weight, mask, gram * factor, tolerance=0, damping=0.1)
    np.testing.assert_allclose(update.weight, expected.weight, rtol=1e-9, atol=1e-12)
    assert update.error == pytest.approx(expected.error * factor, rel=1e-9)
