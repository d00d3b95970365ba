import itertools
import math

import numpy as np
import pytest

import masksmith as ms
from masksmith.measures import diversity

ANCHORS = {"1:4": 24, "2:4": 90, "2:8": 187_530_840, "4:8": 116_963_796_250}


def enumerated(rows, cols, n, n_out, at_most=False):
    """Count by listing every row of every matrix."""
    sizes = range(n + 1) if at_most else (n,)
    choices = [np.bincount(c, minlength=cols) for k in sizes for c in map(list, itertools.combinations(range(cols), k))]
    total = 0
    for picked in itertools.product(choices, repeat=rows):
        sums = np.sum(picked, axis=0)
        total += bool((sums <= n_out).all() if at_most else (sums == n_out).all())
    return total


@pytest.mark.parametrize("text", ANCHORS)
def test_known_counts(text):
    result = diversity(f"transposable {text}")
    assert result.count == ANCHORS[text]
    assert result.method == "exact"


def test_4_of_16_is_the_published_size_and_its_complement():
    assert diversity("transposable 4:16").count == pytest.approx(6.89e42, rel=1e-3)
    assert diversity("transposable 12:16").count == diversity("transposable 4:16").count


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("transposable 1:3", (3, 3, 1, 1)),
        ("transposable 2:3", (3, 3, 2, 2)),
        ("transposable 2:4 x 1:2", (2, 4, 2, 1)),
        ("transposable 1:4 x 1:4", (4, 4, 1, 1)),
        ("transposable 2:6 x 1:3", (3, 6, 2, 1)),
        ("transposable <=1:3", (3, 3, 1, 1, True)),
        ("transposable <=2:4", (4, 4, 2, 2, True)),
        ("transposable <=2:3 x 1:4", (4, 3, 2, 1, True)),
    ],
)
def test_small_tiles_are_counted_as_by_enumeration(text, arguments):
    assert diversity(text).count == enumerated(*arguments)


def test_plain_groups_are_binomials():
    result = diversity("2:4")
    assert (result.count, result.rows, result.cols) == (6, 1, 4)
    assert result.bits_per_weight == pytest.approx(0.646, abs=5e-4)
    assert diversity("<=2:4").count == 1 + 4 + 6


@pytest.mark.parametrize(("text", "times"), [("1:4", 1), ("2:4", 1.6), ("2:8", 1.08), ("4:8", 150), ("4:16", 2150)])
def test_the_published_formula_overcounts(text, times):
    result = diversity(f"transposable {text}")
    assert 2 ** (result.log2_published - result.log2_count) == pytest.approx(times, rel=0.01)


@pytest.mark.parametrize(("text", "bits"), [("8:16", 184.5), ("16:32", 847)])
def test_beyond_counting_the_asymptotic_answers_and_says_so(text, bits):
    result = diversity(f"transposable {text}")
    assert (result.count, result.method) == (None, "asymptotic")
    assert result.log2_count == pytest.approx(bits, rel=1e-3)
    assert result.log2_masks(256 * 10) == pytest.approx(result.bits_per_weight * 2560)
    assert diversity(f"transposable <={text}").method == "lower bound"


def test_the_asymptotic_is_six_percent_low_at_4_of_8():
    from masksmith.measures.diversity import _log2_asymptotic

    wrong = 2 ** (_log2_asymptotic(ms.parse("transposable 4:8").tile) - math.log2(ANCHORS["4:8"]))
    assert wrong == pytest.approx(0.94, abs=0.005)


@pytest.mark.parametrize(
    ("tile", "masks"),
    [
        # 5 x 5 matrices with two ones in every row and column: A001499(5).
        ((5, 5, 4, 2), 2040),
        ((5, 5, 2, 4), 2040),
        # Each of six columns chooses one of four rows, two of which are chosen twice.
        ((4, 6, 3, 1), math.comb(4, 2) * math.factorial(6) // (2 * 2)),
    ],
)
def test_at_most_budgets_that_differ_fill_the_smaller_one(tile, masks):
    from masksmith.measures.diversity import _log2_asymptotic

    assert 2 ** _log2_asymptotic(ms.patterns.TileSpec(*tile, True)) == pytest.approx(masks, rel=0.2)


def test_budgets_that_allow_everything_leave_independent_lines():
    everything = ms.diversity("transposable <=64:64")
    assert (everything.method, everything.log2_count) == ("exact", 64 * 64)
    columns = ms.diversity("transposable <=64:64 x 2:64")
    assert columns.log2_count == pytest.approx(64 * math.log2(1 + 64 + 64 * 63 / 2))
    assert ms.diversity("transposable <=2:64 x 64:64").count == columns.count
    assert ms.diversity("transposable <=4:4 x 1:3").count == 4**4


@pytest.mark.parametrize(("rows", "cols"), [(2, 7), (4, 6), (6, 6), (7, 3)])
def test_the_lower_bound_is_below_the_exact_count(rows, cols):
    from masksmith.measures.diversity import _count, _log2_asymptotic

    for n, k in itertools.product(range(1, cols + 1), range(1, rows + 1)):
        tile = ms.patterns.TileSpec(rows, cols, n, k, True)
        assert tile.separable or _log2_asymptotic(tile) < math.log2(_count(tile)), tile
