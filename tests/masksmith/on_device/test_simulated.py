"""The device's kernels give the CPU's bits: masks, prices and proofs, on every kind of scores and every option."""

from __future__ import annotations

import numpy as np
import pytest
from support.strategies import SCORES

import masksmith as ms

from .conftest import Case

RNG = np.random.default_rng(11)


def _check(case: Case, found: dict[str, np.ndarray]) -> None:
    expected = case.solve_on_cpu()
    if isinstance(expected, ms.MasksmithError):
        assert str(found["error"]) == str(expected), case.name
        return
    assert "error" not in found, found.get("error")
    assert str(found["status"]) == expected.status
    assert set(found["stats"]) == {*expected.stats, "device_name"}
    np.testing.assert_array_equal(found["mask"], np.asarray(expected.mask), err_msg=case.name)
    np.testing.assert_array_equal(found["row_duals"], expected.duals[0], err_msg=case.name)
    np.testing.assert_array_equal(found["col_duals"], expected.duals[1], err_msg=case.name)
    np.testing.assert_allclose(found["objectives"], expected.tile_objectives, rtol=1e-13, err_msg=case.name)
    sums = [expected.objective, expected.upper_bound, expected.unshifted_objective, expected.kept]
    np.testing.assert_allclose(found["sums"], sums, rtol=1e-13, err_msg=case.name)
    np.testing.assert_allclose(found["total"], expected.total_score, rtol=1e-13, err_msg=case.name)
    if expected.pruned is not None:
        np.testing.assert_array_equal(found["pruned"], expected.pruned, err_msg=case.name)
        np.testing.assert_array_equal(found["packed"], expected.packed, err_msg=case.name)
    if expected.gap == 0.0:
        np.testing.assert_array_equal(found["bounds"], found["objectives"], err_msg=case.name)


def _changed(scores, place, value):
    changed = scores.copy()
    changed[place] = value
    return changed


def _special() -> list[Case]:
    """Options and shapes, each on scores that need it."""
    wide = np.abs(RNG.standard_normal((16, 16))).astype(np.float32)
    wide_moved = (wide * RNG.uniform(0.9, 1.1, wide.shape)).astype(np.float32)
    # The simulator takes a second for a few tiles: two of 4x4 are enough where nothing needs more.
    gauss, moved, odd, tile = wide[:4, :8], wide_moved[:4, :8], wide[:7, :6], wide[:8, :8]
    ties = RNG.integers(0, 4, gauss.shape).astype(np.float32)
    keep, drop = RNG.random(gauss.shape) < 0.05, RNG.random(gauss.shape) < 0.05
    start, large = (
        ms.solve(gauss, "transposable 2:4", keep_duals=True),
        ms.solve(wide, "transposable 8:16", keep_duals=True),
    )
    (u, v), (wide_u, wide_v) = start.duals, large.duals
    signed = RNG.standard_normal(wide.shape)
    bad = gauss.copy()
    bad[3, 5] = np.nan
    huge = np.ldexp(gauss.astype(np.float64), 1022)
    locked = np.zeros(gauss.shape, bool)
    locked[2, :3] = True
    return [
        Case("forced", "transposable 2:4", gauss, arrays={"must_keep": keep, "must_drop": drop & ~keep}),
        Case("forced ties", "transposable <=2:4", ties, arrays={"must_keep": keep, "must_drop": drop & ~keep}),
        Case("impossible", "transposable 2:4", gauss, arrays={"must_keep": locked}),
        Case("contradiction", "transposable 2:4", gauss, arrays={"must_keep": locked, "must_drop": locked}),
        Case("warm, small tiles", "transposable 2:4", moved, arrays={"start": start.mask, "u": u, "v": v}),
        Case("warm", "transposable 8:16", wide_moved, arrays={"start": large.mask, "u": wide_u, "v": wide_v}),
        Case("hysteresis", "transposable 2:4", moved, hysteresis=0.3, arrays={"warm_start": start.mask}),
        Case(
            "negative score with hysteresis",
            "transposable 2:4",
            _changed(gauss, tuple(np.argwhere(start.mask)[0]), -0.1),
            hysteresis=0.3,
            arrays={"warm_start": start.mask},
        ),
        Case("padded", "transposable 2:4", odd),
        Case("dense edge", "transposable 2:4", odd, ragged="dense"),
        Case(
            "dense edge, hysteresis",
            "transposable 2:4",
            odd,
            ragged="dense",
            hysteresis=0.3,
            arrays={"warm_start": odd > 0.5},
        ),
        Case("smaller than a tile", "transposable 2:4", gauss[:3], ragged="dense"),
        Case("negative score at the right", "transposable 2:4", _changed(odd, (1, -1), -1.0), ragged="dense"),
        Case("NaN below", "transposable 2:4", _changed(odd, (-1, 0), np.nan), ragged="dense"),
        Case("negative score without tiles", "transposable 2:4", _changed(gauss[:3], (2, 5), -1.0), ragged="dense"),
        Case("strided", "transposable 2:4", wide.T[:8:2, :8]),
        Case("rectangular", "transposable 4:8 x 2:4", gauss[:4]),
        Case("uneven", "transposable <=2:6 x 2:3", RNG.integers(0, 4, (3, 12)).astype(np.float32)),
        Case("convolution", "transposable 2:4", np.abs(RNG.standard_normal((4, 4, 2, 1))).astype(np.float32)),
        Case("all kept", "transposable 4:4", gauss[:4, :8]),
        Case("all kept, negative", "transposable 4:4", -gauss),
        Case("all kept, not a number", "transposable <=4:4", bad),
        Case("bfloat16", "transposable 4:8", tile, bfloat16=True),
        Case("pruned", "transposable 4:8", tile, arrays={"weight": signed[:8, :8]}),
        Case("pruned, padded", "transposable 2:4", odd, arrays={"weight": signed[:7, :6].astype("f2")}),
        Case("pruned, dense edge", "transposable 2:4", odd, "dense", arrays={"weight": signed[:7, :6]}),
        Case("integers", "transposable 2:4", RNG.integers(0, 100, gauss.shape).astype(np.int8)),
        Case("negative", "transposable 2:4", -gauss),
        Case("not a number", "transposable 2:4", bad),
        Case("overflow", "transposable 2:4", huge),
        Case("overflow of the total alone", "transposable 1:4", np.ldexp(np.ones((4, 8)), 1019)),
        Case("no overflow yet", "transposable 2:4", np.ldexp(gauss.astype(np.float64), 1013)),
        Case(
            "overflow by hysteresis", "transposable 2:4", gauss, hysteresis=1.79e308, arrays={"warm_start": start.mask}
        ),
        Case("duals of other tiles", "transposable 2:4", moved, arrays={"start": large.mask, "u": wide_u, "v": wide_v}),
    ]


def test_the_device_gives_the_bits_of_the_cpu(simulate):
    cases = [
        *(Case.of(name, "transposable 4:8") for name in ("gaussian", "integers", "constant", "student t")),
        *(Case.of(name, "transposable <=2:4") for name in ("gaussian", "integers")),
        Case.of("gaussian", "transposable 8:16", across=1, dtype=np.float64),
        Case.of("integers", "transposable 3:7", across=1),
        *_special(),
    ]
    answers = simulate(cases)
    for case in cases:
        _check(case, answers[case.name])


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern",
    ["transposable 2:4", "transposable <=4:8", "transposable 8:16", "transposable 5:12", "transposable 16:32"],
)
def test_the_device_gives_the_bits_of_the_cpu_on_every_generator(simulate, pattern):
    cases = [Case.of(name, pattern) for name in SCORES] + [Case.of(name, pattern, dtype=np.float64) for name in SCORES]
    answers = simulate(cases)
    for case in cases:
        _check(case, answers[case.name])
