"""Reports of tensors that are not one matrix `[out, in]`: measures are of the matrices that were solved."""

import numpy as np
import pytest
import torch

import masksmith as ms
from masksmith.layouts import Layout

RNG = np.random.default_rng(0)


def test_the_layout_of_the_solve_is_that_of_the_report():
    weight = RNG.standard_normal((16, 32))
    solution = ms.solve(abs(weight), "2:4", layout="in out")
    assert ms.report(solution) == ms.report(solution, layout="in out")
    assert ms.report(solution).storage_bytes["two_four"] is not None
    solution = ms.solve(abs(weight), "2:4", layout=Layout(("out", "in"), (6, 10)))
    assert ms.report(solution).storage_bytes["two_four"] is not None


def test_the_spectrum_is_that_of_the_matrices():
    weight = RNG.standard_normal((3, 8, 16))
    solution = ms.solve(abs(weight), "transposable 2:4", layout="stack out in")
    values = np.concatenate([np.linalg.svd(each, compute_uv=False) for each in weight * solution.mask])
    spectrum = ms.report(solution, weight=weight).spectrum
    assert (spectrum.least, spectrum.most) == pytest.approx((values.min(), values.max()))


@pytest.mark.parametrize("shape", [(4, 8, 3, 3), (4, 8, 2, 2, 2)])
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_the_flat_view_of_the_solve_is_that_of_the_report(shape, kind):
    weight = RNG.standard_normal(shape)
    weight = weight if kind == "numpy" else torch.from_numpy(weight)
    solution = ms.solve(abs(weight), "2:4", view="flat")
    flat = ms.solve(abs(weight).reshape(shape[0], -1), "2:4")
    report, expected = ms.report(solution, weight=weight), ms.report(flat, weight=weight.reshape(shape[0], -1))
    assert report.shape == shape
    assert report.storage_bytes == expected.storage_bytes
    assert report.storage_bytes["two_four"] is not None
    assert (report.fill, report.spectrum) == (expected.fill, expected.spectrum)
    with pytest.raises(ms.ScoresError, match="differs from the weight's"):
        ms.report(solution, weight=weight.reshape(shape[0], -1))


def test_a_flat_view_of_stacked_convolutions_is_that_of_the_report():
    weight = RNG.standard_normal((2, 8, 4, 3))
    solution = ms.solve(abs(weight), "2:4", view="flat", layout="stack in out kernel")
    report = ms.report(solution, weight=weight)
    assert report.storage_bytes["two_four"] is not None
    flat = (weight * solution.mask).swapaxes(1, 2).reshape(2, 4, -1)
    assert report.spectrum.most == pytest.approx(max(np.linalg.norm(each, 2) for each in flat))
