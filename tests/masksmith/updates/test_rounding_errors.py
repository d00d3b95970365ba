"""Errors that are 0 but for rounding: of few samples, which fewer kept weights than inputs can fit exactly."""

import numpy as np
import torch

import masksmith as ms
from masksmith.updates.conjugate_gradients import squared_norms


def problems(count):
    for seed in range(count):
        rng = np.random.default_rng(seed)
        inputs = rng.standard_normal((3, 8))
        yield rng, rng.standard_normal((4, 8)), inputs.T @ inputs


def test_no_squared_error_is_negative():
    for rng, weight, gram in problems(60):
        admm = ms.admm(weight, gram, "2:4", damping=1e-8)
        one = ms.reconstruct(weight, rng.random((4, 8)) < 0.5, gram, damping=1e-8, tolerance=0)
        for update in (admm, one):
            assert min(update.error, update.masked_error, update.energy) >= 0
            assert update.gain >= 1
        refined = ms.refine(weight, admm.mask, gram, "2:4")
        assert min(refined.error, refined.start_error, refined.energy) >= 0


def test_norms_of_vectors_without_output_are_zero():
    inputs = torch.tensor([[1.0, 1 / 3]], dtype=torch.float64)
    vectors = torch.tensor([[1 / 3, -1.0]], dtype=torch.float64) * torch.rand(100, 1, dtype=torch.float64)
    norms = squared_norms(vectors, vectors @ (inputs.T @ inputs))
    assert (norms >= 0).all()
    assert norms.max() < 1e-15
