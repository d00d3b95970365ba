"""ADMM: an allowed mask with its proof, weights no worse than the first mask's, and rounds that are told."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import masksmith as ms
from masksmith.updates.ridge import Ridge

PATTERNS = [
    "2:4", "transposable 2:4", "transposable <=2:4", "double 2:4", "transposable 4:8 x 2:4",
    "50%", "block 4x4 50%", "16:2:8", "channels out 50%", "hybrid 4x8 2:4 50%",
]  # fmt: skip


def layer(rows=32, inputs=48, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((inputs, inputs)) * np.exp(-np.arange(inputs) / 16)[:, None]
    seen = rng.standard_normal((400, inputs)) @ mixing
    return rng.standard_normal((rows, inputs)).astype(dtype), seen.T @ seen


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_gets_weights_a_mask_and_its_proof(pattern):
    weight, gram = layer()
    update = ms.admm(weight, gram, pattern)
    assert ms.verify(update.mask, pattern)
    assert not update.weight[~update.mask].any()
    assert update.solution.mask is update.mask
    assert (update.solution.gap == 0.0) == (update.solution.status is ms.Status.OPTIMAL)
    assert update.solves == len(update.history) + 1
    assert update.error <= update.start_error
    assert update.error <= update.masked_error
    difference = update.weight.astype(float) - weight
    assert update.error == pytest.approx(np.sum((difference @ gram) * difference), rel=1e-6)


@pytest.mark.parametrize("pattern", ["2:4", "transposable 4:8", "50%"])
def test_correlated_inputs_reward_the_search(pattern):
    weight, gram = layer(rows=64, inputs=64)
    update = ms.admm(weight, gram, pattern)
    assert update.stats["returned"] == "last"
    assert update.error < 0.95 * update.start_error
    assert update.stats["settled"]


def test_it_comes_near_the_best_mask_of_a_tiny_layer():
    """One row of 2:4 over 8 inputs has 36 masks: all are tried."""
    ratios = []
    for seed in range(6):
        weight, gram = layer(1, 8, seed, np.float64)
        pairs = [(a, b) for a in range(4) for b in range(a)]
        masks = []
        for left in pairs:
            for right in pairs:
                mask = np.zeros((1, 8), bool)
                mask[0, [*left, *(4 + k for k in right)]] = True
                masks.append(mask)
        best = min(ms.reconstruct(weight, mask, gram).error for mask in masks)
        ratios.append(ms.admm(weight, gram, "2:4").error / best)
    assert min(ratios) >= 1 - 1e-9
    assert np.median(ratios) < 1.5


def test_independent_inputs_leave_nothing_to_gain():
    weight, _ = layer()
    update = ms.admm(weight, np.eye(48), "2:4")
    best = ms.solve(ms.magnitude(weight, 2), "2:4")
    np.testing.assert_array_equal(update.mask, best.mask)
    np.testing.assert_array_equal(update.weight, weight * best.mask)


def test_a_given_start_is_never_made_worse():
    weight, gram = layer()
    start = ms.solve(ms.magnitude(weight), "transposable 2:4", keep_duals=True)
    update = ms.admm(weight, gram, "transposable 2:4", start=start, max_rounds=1)
    from_start = ms.reconstruct(weight, start.mask, gram)
    assert (update.start_error, update.start_masked_error) == (from_start.error, from_start.masked_error)
    assert update.error <= update.start_error
    assert update.solves == 1


@pytest.mark.parametrize(
    ("pattern", "start_pattern"),
    [("2:4", "12:16"), ("2:4", "1:2"), ("transposable 2:4", "transposable 6:8"), ("25%", "50%")],
)
def test_a_start_of_another_pattern_is_refused(pattern, start_pattern):
    weight, gram = layer()
    start = ms.solve(ms.magnitude(weight), start_pattern)
    with pytest.raises(
        ms.UpdateError, match=f"'a': start is a solution for the pattern {start_pattern}, not for {pattern}"
    ):
        ms.admm(weight, gram, pattern, start=start, max_rounds=1, name="a")


def test_a_start_of_another_layout_is_refused():
    weight, gram = layer(48, 48)
    transposed = ms.solve(ms.magnitude(weight), "2:4", layout="in out")
    with pytest.raises(ms.UpdateError, match="'a': start was solved with layout='in out'"):
        ms.admm(weight, gram, "2:4", start=transposed, max_rounds=1, penalty=1e6, name="a")


def test_a_start_with_a_mask_that_its_pattern_does_not_allow_is_refused():
    weight, gram = layer()
    start = ms.solve(ms.magnitude(weight), "2:4")
    with pytest.raises(ms.UpdateError, match="the mask of start is not allowed by its pattern 2:4"):
        ms.admm(weight, gram, "2:4", start=replace(start, mask=np.ones(weight.shape, bool)), max_rounds=1)
    flat = ms.solve(np.random.default_rng(0).random((8, 4, 3, 3)), "2:4", view="flat")
    with pytest.raises(ms.UpdateError, match="the mask of start is not allowed by its pattern 2:4"):
        ms.admm(np.ones((8, 4, 3, 3)), np.eye(36), "2:4", start=flat, max_rounds=1)


def test_the_same_input_gives_the_same_answer():
    weight, gram = layer()
    first, second = (ms.admm(weight, gram, "transposable 4:8") for _ in range(2))
    np.testing.assert_array_equal(first.weight, second.weight)
    assert first.history == second.history


@pytest.mark.parametrize("size", [1e-15, 1e15])
def test_units_do_not_matter(size):
    weight, gram = layer(dtype=np.float64)
    plain, scaled = ms.admm(weight, gram, "2:4"), ms.admm(weight * size, gram / size, "2:4")
    np.testing.assert_array_equal(plain.mask, scaled.mask)
    np.testing.assert_allclose(scaled.weight / size, plain.weight, rtol=1e-6, atol=1e-9)


def test_torch_and_convolutions():
    convolution = torch.nn.Conv2d(8, 16, 3)
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 8, 10, 10), dtype=np.float32))
    gram = ms.calibrate(convolution, [images], gather=("gram",))["weight"].gram
    update = ms.admm(convolution.weight, gram, "2:4")
    assert isinstance(update.weight, torch.Tensor)
    assert update.weight.shape == convolution.weight.shape
    assert ms.verify(update.mask, "2:4")
    assert update.error < update.masked_error


def test_progress_counts_rounds_and_may_stop():
    weight, gram = layer()
    seen = []
    update = ms.admm(weight, gram, "2:4", max_rounds=4, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(k + 1, 4) for k in range(len(update.history))]

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ms.admm(weight, gram, "2:4", on_progress=stop)


def test_what_cannot_be_used_is_refused_by_name():
    weight, gram = layer()
    with pytest.raises(ms.UpdateError, match=r"'a': penalty=0.0 is not a number from 1e-06 to 1e\+06"):
        ms.admm(weight, gram, "2:4", penalty=0.0, name="a")
    for rounds in (0, 2.5):
        with pytest.raises(ms.UpdateError, match=f"'a': max_rounds={rounds} is not an integer of at least 1"):
            ms.admm(weight, gram, "2:4", max_rounds=rounds, name="a")
    dead = gram.copy()
    dead[3], dead[:, 3] = 0, 0
    with pytest.raises(ms.UpdateError, match=r"'a': gram holds 0 at \[3, 3\]: that input was always 0"):
        ms.admm(weight, dead, "2:4", damping=0.0, name="a")
    assert ms.admm(weight, dead, "2:4").error > 0
    with pytest.raises(ms.PatternError):
        ms.admm(weight, gram, "transposable 5:4")


def test_wide_and_tall_layers_take_the_same_rounds(monkeypatch):
    """One regression multiplies by the eigenvectors, the other by the inverse."""
    weight, gram = layer(rows=8, inputs=96, dtype=np.float64)
    by_vectors = ms.admm(weight, gram, "2:4")
    monkeypatch.setattr("masksmith.updates.ridge.INPUTS_PER_OUTPUT_LIMIT", 1000)
    by_inverse = ms.admm(weight, gram, "2:4")
    np.testing.assert_array_equal(by_inverse.mask, by_vectors.mask)
    assert [(one.penalty, one.flips) for one in by_inverse.history] == [
        (other.penalty, other.flips) for other in by_vectors.history
    ]
    distances = [[one.distance for one in update.history] for update in (by_inverse, by_vectors)]
    np.testing.assert_allclose(*distances, rtol=1e-6)
    # Both reconstructions are within the tolerance, but rounding errors change the path of conjugate gradients.
    assert by_inverse.error == pytest.approx(by_vectors.error, rel=5e-3)


@pytest.mark.parametrize("rough", [0.05, 0.2, 100])
def test_a_better_start_is_returned_with_its_weights_reconstructed(monkeypatch, rough):
    monkeypatch.setattr(sys.modules["masksmith.updates.admm"], "START_TOLERANCE", rough)
    weight, gram = layer(rows=8, inputs=96)
    good = ms.admm(weight, gram, "2:4").solution
    update = ms.admm(weight, gram, "2:4", start=good, penalty=1e-6, max_rounds=1)
    assert update.stats["returned"] == "start"
    assert update.solution is good
    # Both errors are within the tolerance of `reconstruct`; the bounds on the eigenvalues differ.
    assert update.error == update.start_error == pytest.approx(ms.reconstruct(weight, good.mask, gram).error, rel=5e-3)
    assert update.stats["iterations"] > 0


def test_the_ridge_regression_is_the_solution_of_its_normal_equations():
    weight, gram = layer(rows=40, inputs=96, dtype=np.float64)
    matrix, target = torch.from_numpy(gram / np.trace(gram)), torch.from_numpy(weight)
    torch.manual_seed(0)
    for rows in (8, 40):
        ridge = Ridge(matrix, target[:rows])
        for penalty in (0.03, 0.03, 0.1):
            offset = torch.randn(rows, 96, dtype=torch.float64)
            right = target[:rows] @ matrix + offset
            expected = torch.linalg.solve(matrix + penalty * torch.eye(96), right.T).T
            torch.testing.assert_close(ridge.solve(offset.clone(), penalty), expected, rtol=1e-5, atol=1e-6)
