"""Masks refined by exchanges: never worse, inside their pattern, and above a bound that no mask falls below."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import masksmith as ms

PATTERNS = ["2:4", "<=2:4", "transposable 2:4", "transposable 4:8"]


def error_of(mask, weight, gram):
    dropped = np.where(mask, 0.0, np.asarray(weight, np.float64))
    return float(np.sum((dropped @ gram) * dropped))


@st.composite
def problems(draw):
    """Layers with ragged edges, ties, dead inputs, and inputs that depend on each other."""
    rows, inputs, samples = draw(st.integers(1, 11)), draw(st.integers(1, 13)), draw(st.sampled_from([2, 20]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    seen = rng.integers(-3, 4, (samples, inputs)) * draw(st.sampled_from([1.0, 1e-8, 1e8]))
    seen[:, rng.random(inputs) < draw(st.sampled_from([0, 0.3]))] = 0
    values = rng.integers(-2, 3, (rows, inputs)) if draw(st.booleans()) else rng.standard_normal((rows, inputs))
    return values.astype(draw(st.sampled_from([np.float64, np.float32, np.float16]))), seen.T @ seen


@settings(max_examples=100, deadline=None)
@given(problems(), st.sampled_from(PATTERNS))
def test_never_worse_and_inside_the_pattern(problem, pattern):
    weight, gram = problem
    start = ms.solve(ms.magnitude(weight).astype(np.float32), pattern).mask
    refined = ms.refine(weight, start, gram, pattern)
    assert ms.verify(refined.mask, pattern)
    np.testing.assert_array_equal(refined.mask.sum(), start.sum())
    assert refined.lower_bound <= refined.error <= refined.start_error
    scale = max(refined.energy, error_of(start, weight, gram), 1e-300)
    assert refined.error == pytest.approx(error_of(refined.mask, weight, gram), abs=1e-12 * scale)
    assert refined.start_error == pytest.approx(error_of(start, weight, gram), abs=1e-12 * scale)


def masks_of(rows, inputs, pattern):
    """All masks of a tiny layer."""
    for bits in itertools.product([False, True], repeat=rows * inputs):
        mask = np.array(bits).reshape(rows, inputs)
        if mask.sum() == rows * inputs // 2 and ms.verify(mask, pattern):
            yield mask


@pytest.mark.parametrize(("shape", "pattern"), [((1, 8), "2:4"), ((2, 4), "2:4"), ((4, 4), "transposable 2:4")])
def test_the_bound_and_the_local_optimum_against_all_masks(shape, pattern):
    masks = list(masks_of(*shape, pattern))
    for seed in range(5):
        rng = np.random.default_rng(seed)
        seen = rng.standard_normal((30, shape[1])) + rng.standard_normal((30, 1))
        weight, gram = rng.standard_normal(shape), seen.T @ seen
        errors = [error_of(mask, weight, gram) for mask in masks]
        refined = ms.refine(weight, masks[-1], gram, pattern)
        assert 0 < refined.lower_bound <= min(errors) <= refined.error * (1 + 1e-12)
        assert refined.error <= np.median(errors)


def test_independent_inputs_have_a_tight_bound_and_the_best_mask():
    rng = np.random.default_rng(0)
    weight, gram = rng.standard_normal((8, 16)), np.diag(rng.random(16) + 0.1)
    worst = ms.solve((1 / ms.wanda(weight, np.sqrt(np.diag(gram)))).astype(np.float32), "2:4").mask
    refined = ms.refine(weight, worst, gram, "2:4")
    best = ms.solve((weight**2 * np.diag(gram)).astype(np.float32), "2:4").mask
    np.testing.assert_array_equal(refined.mask, best)
    assert refined.looseness == pytest.approx(1.0, rel=1e-5)


def test_correlated_inputs_gain_much():
    rng = np.random.default_rng(0)
    seen = rng.standard_normal((200, 64)) @ (rng.standard_normal((64, 64)) * np.exp(-np.arange(64) / 8)[:, None])
    weight, gram = rng.standard_normal((32, 64)), seen.T @ seen
    for pattern in ("2:4", "transposable 8:16"):
        start = ms.solve(ms.wanda(weight, np.sqrt(np.diag(gram))).astype(np.float32), pattern).mask
        refined = ms.refine(weight, start, gram, pattern)
        assert refined.error < 0.6 * refined.start_error
        again = ms.refine(weight, refined.mask, gram, pattern)
        assert again.stats["exchanges"] == 0
        np.testing.assert_array_equal(again.mask, refined.mask)
        for threads in (1, 3):
            same = ms.refine(weight, start, gram, pattern, threads=threads)
            np.testing.assert_array_equal(same.mask, refined.mask)


def test_torch_and_convolutions_keep_their_library_and_order():
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(8, 16, 3, bias=False)
    images = torch.randn(4, 8, 10, 10)
    gram = ms.calibrate(convolution, [images], gather=("gram",))["weight"].gram
    weight = convolution.weight.detach()
    mask = ms.solve(ms.magnitude(weight), "2:4").mask
    refined = ms.refine(weight, mask, gram, "2:4")
    assert isinstance(refined.mask, torch.Tensor)
    assert refined.mask.shape == weight.shape
    assert ms.verify(refined.mask, "2:4")
    with torch.no_grad():
        expected = convolution(images)
        convolution.weight.mul_(refined.mask)
        squared = float((convolution(images) - expected).double().square().sum())
    assert refined.error == pytest.approx(squared, rel=1e-3)
    assert refined.error < 0.9 * refined.start_error
    assert ms.refine(weight.bfloat16(), mask, gram, "2:4").error < refined.start_error


def test_full_masks_and_dead_inputs_leave_nothing_to_do():
    weight = np.ones((4, 8))
    full = ms.refine(weight, np.ones((4, 8), bool), np.eye(8), "4:4")
    assert (full.error, full.lower_bound, full.looseness, full.stats["exchanges"]) == (0.0, 0.0, 1.0, 0)
    mask = np.tile([True, True, False, False], (4, 2))
    dead = ms.refine(weight, mask, np.zeros((8, 8)), "2:4")
    np.testing.assert_array_equal(dead.mask, mask)
    assert (dead.error, dead.relative_error) == (0.0, 0.0)
    singular = ms.refine(weight + np.arange(8), mask, np.ones((8, 8)), "2:4")
    assert (singular.lower_bound, singular.looseness) == (0.0, float("inf"))


def test_progress_counts_rows_and_may_stop():
    weight, mask = np.random.default_rng(0).standard_normal((10, 8)), np.tile([True, True, False, False], (10, 2))
    seen = []
    ms.refine(weight, mask, np.eye(8), "2:4", on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (10, 10)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ms.refine(weight, mask, np.eye(8), "2:4", on_progress=stop)


@pytest.mark.parametrize(
    ("pattern", "mask", "message"),
    [
        ("50%", np.ones((4, 8), bool), r"50% cannot be refined; only plain N:M along 'in' and transposable N:M can"),
        (ms.NM(2, 4, axis="out"), np.ones((4, 8), bool), "cannot be refined"),
        ("2:4", np.ones((4, 8), bool), "the mask does not match 2:4"),
        ("2:4", np.ones((4, 4), bool), "mask has shape"),
    ],
)
def test_what_cannot_be_refined_is_refused_by_name(pattern, mask, message):
    with pytest.raises(ms.UpdateError, match=rf"'a': .*{message}"):
        ms.refine(np.ones((4, 8)), mask, np.eye(8), pattern, name="a")
