"""SparseGPT scores of Gram matrices of which only one triangle is filled, as BLAS `syrk` returns them."""

import numpy as np
import pytest

import masksmith as ms
from masksmith.scores import inverse_diagonal

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((6, 8))
GRAM = (lambda inputs: inputs.T @ inputs)(RNG.standard_normal((40, 8)))


@pytest.mark.parametrize("triangle", [np.tril, np.triu])
@pytest.mark.parametrize("form", ["diagonal", "sequential"])
def test_one_triangle_is_refused(triangle, form):
    for compute in (
        lambda: ms.sparsegpt(WEIGHT, gram=triangle(GRAM), form=form, name="fc"),
        lambda: inverse_diagonal(triangle(GRAM), form=form, name="fc"),
    ):
        with pytest.raises(ms.ScoresError, match=r"'fc': gram is not symmetric at \[\d, \d\].* both triangles"):
            compute()


def test_an_entry_of_any_band_of_rows_is_compared():
    gram = np.eye(1500) * 2
    gram[1400, 3] = 0.1
    with pytest.raises(ms.ScoresError, match=r"not symmetric at \[3, 1400\]"):
        inverse_diagonal(gram)
    gram[1400, 3] = 0
    gram[1400, 1399] = 0.1
    with pytest.raises(ms.ScoresError, match=r"not symmetric at \[1399, 1400\]"):
        inverse_diagonal(gram)


def test_rounding_errors_of_float32_are_accepted():
    rounded = GRAM.astype(np.float32)
    rounded[0, 1] = np.nextafter(rounded[0, 1], np.float32(np.inf))
    np.testing.assert_allclose(inverse_diagonal(rounded), inverse_diagonal(GRAM), rtol=1e-3)
