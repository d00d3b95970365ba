"""solve and solve_many: inputs of every kind, bad ones named, and a proof that does not depend on how it was run."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
import torch

import masksmith as ms
from masksmith._engine import PanelStore, panel_store
from masksmith._problem import Problem
from masksmith.whole_tensor import vnm

T816 = "transposable 8:16"


def gaussian(*shape: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("pattern", ["2:4", T816, "transposable <=3:7", "transposable 4:8 x 2:4"])
@pytest.mark.parametrize("ragged", ["pad", "dense"])
def test_solution_is_proved_verified_and_adds_up(pattern: str, ragged: Any) -> None:
    rule = ms.parse(pattern, ragged=ragged)
    scores = ms.magnitude(gaussian(70, 83))
    solution = ms.solve(scores, rule)
    assert solution.status is ms.Status.OPTIMAL
    assert solution.gap == 0.0
    assert not solution.tile_gaps.any()
    assert ms.verify(solution.mask, rule)
    kept = scores[solution.mask].sum(dtype=np.float64)
    assert solution.objective == pytest.approx(kept, rel=1e-12)
    assert solution.upper_bound == solution.objective
    assert solution.retained == pytest.approx(kept / scores.sum(dtype=np.float64), rel=1e-12)
    assert solution.density == solution.mask.mean()
    assert solution.sparsity == 1 - solution.density


@pytest.mark.parametrize("pattern", ["2:4", T816, "50%", "channels in 50%", "block 4x4 50%", "16:2:8"])
def test_every_pattern_reports_the_same_stats(pattern: str) -> None:
    stats = ms.solve(np.abs(gaussian(32, 32)), pattern, threads=1).stats
    assert set(stats) == {"solver", "tiles", "optimal_tiles", "solve_s", "threads", "device"}
    assert stats["tiles"] == stats["optimal_tiles"] > 0
    assert (stats["threads"], stats["device"]) == (1, "cpu")
    assert stats["solve_s"] > 0


def test_all_kinds_of_input_give_the_same_mask() -> None:
    weight = torch.from_numpy(gaussian(64, 48)).bfloat16().float().numpy()
    truth = ms.solve(np.abs(weight), T816).mask
    wide = np.zeros((64, 96), np.float32)
    wide[:, ::2] = weight
    variants: list[Any] = [
        weight.astype(np.float64),
        np.asfortranarray(weight),
        wide[:, ::2],
        torch.from_numpy(weight),
        torch.from_numpy(weight).bfloat16(),
        torch.from_numpy(weight).double(),
        torch.from_numpy(np.asfortranarray(weight)),
        torch.nn.Parameter(torch.from_numpy(weight)),
    ]
    for variant in variants:
        mask = ms.solve(ms.magnitude(variant), T816).mask
        assert isinstance(mask, torch.Tensor) == isinstance(variant, torch.Tensor)
        np.testing.assert_array_equal(np.asarray(mask), truth)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_eight_bit_integers_are_scored_without_overflow(dtype: Any) -> None:
    info = np.iinfo(dtype)
    weight = np.random.default_rng(0).integers(info.min, info.max, (32, 32), dtype, endpoint=True)
    weight[0, 0] = info.min
    solution = ms.solve(ms.magnitude(weight), T816)
    assert solution.gap == 0.0
    assert solution.objective == np.abs(weight.astype(np.int64))[solution.mask].sum()


@pytest.mark.parametrize("shape", [(32, 16, 3, 3), (32, 16, 5)])
@pytest.mark.parametrize("pattern", [ms.NM(2, 4), ms.NM(2, 4, axis="out"), ms.NM(8, 16, transposable=True)], ids=repr)
def test_convolutions_group_along_channels(shape: tuple[int, ...], pattern: ms.NM) -> None:
    weight = gaussian(*shape)
    solution = ms.solve(ms.magnitude(weight), pattern)
    assert solution.mask.shape == shape
    channel_last = np.moveaxis(solution.mask, 1, -1).reshape(shape[0], -1)
    groups = channel_last if pattern.axis == "in" else channel_last.T
    assert (groups.reshape(len(groups), -1, pattern.m).sum(axis=2) == pattern.n).all()
    assert ms.verify(solution.mask, pattern)
    flat = np.moveaxis(weight, 1, -1).reshape(shape[0], -1)
    assert ms.solve(ms.magnitude(flat), pattern).objective == pytest.approx(solution.objective, rel=1e-12)


def test_the_answer_does_not_depend_on_threads_or_company() -> None:
    layers = {f"layer{k}": ms.magnitude(np.round(gaussian(130, 90, seed=k) * 2)) for k in range(4)}
    many = ms.solve_many(layers, T816, threads=3)
    for name, scores in layers.items():
        alone = ms.solve(scores, T816, threads=1)
        np.testing.assert_array_equal(alone.mask, many[name].mask)
        assert alone.objective == many[name].objective
        assert alone.total_score == many[name].total_score


@pytest.mark.parametrize("rule", [T816, "transposable <=2:4", "transposable 3:7", ms.NM(2, 4, axis="out")], ids=str)
def test_the_answer_does_not_depend_on_panels(rule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.round(4 * np.abs(gaussian(200, 130)))
    whole = ms.solve(scores, rule, threads=1)
    for entries in (1, 5000, 9000):
        monkeypatch.setattr(panel_store, "PANEL_ENTRIES", entries)
        pieces = ms.solve(scores, rule, threads=2)
        np.testing.assert_array_equal(pieces.mask, whole.mask)
        assert pieces.tile_objectives.tobytes() == whole.tile_objectives.tobytes()


def test_panels_come_in_pairs_and_cover_the_layer() -> None:
    for rows in (16, 256, 512, 768, 4000):
        spans = list(PanelStore(Problem(np.zeros((rows, 1024), np.float32), ms.parse(T816))).spans())
        assert [span.first for span in spans[1:]] == [span.last for span in spans[:-1]]
        assert spans[0].first == 0
        assert spans[-1].last == rows // 16
        assert len(spans) == 1 or len(spans) % 2 == 0
        assert len({span.last - span.first for span in spans[:-1]}) <= 1
        assert (spans[0].last - 1) * 16 * 1024 <= panel_store.PANEL_ENTRIES


def test_a_mask_is_made_where_it_stays() -> None:
    store = PanelStore(Problem(np.abs(gaussian(32, 32)), ms.parse(T816)))
    span = next(store.spans())
    loaded = store.read(span)
    assert loaded.panel is not None
    answer = ms.Exact()(loaded.panel)
    assert np.shares_memory(answer.mask, store.writer.mask)
    store.write(span, loaded, answer, 0.0)
    assert ms.verify(store.writer.mask, T816)
    ragged = PanelStore(Problem(np.abs(gaussian(30, 30)), ms.parse(T816)))
    padded = ragged.read(next(ragged.spans())).panel
    assert padded is not None
    assert padded.output is None


@pytest.mark.parametrize(
    ("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "negative"), (-1.0, "negative score -1")]
)
@pytest.mark.parametrize("where", [(0, 0), (40, 7), (63, 63)])
def test_bad_scores_are_named_with_index_and_value(value: float, word: str, where: tuple[int, int]) -> None:
    scores = np.abs(gaussian(64, 64))
    scores[where] = value
    with pytest.raises(ms.ScoresError, match=word) as caught:
        ms.solve_many({"fine": np.abs(gaussian(64, 64)), "layer.weight": scores}, T816)
    assert caught.value.index == where
    assert "layer.weight" in str(caught.value)
    assert str(list(where)) in str(caught.value)


def test_bad_scores_of_a_convolution_are_named_by_its_own_index() -> None:
    scores = np.abs(gaussian(16, 8, 3, 3))
    scores[5, 6, 1, 2] = np.nan
    for axis in ("in", "out"):
        with pytest.raises(ms.ScoresError) as caught:
            ms.solve(scores, ms.NM(2, 4, axis=axis))
        assert caught.value.index == (5, 6, 1, 2)


@pytest.mark.parametrize("scores", [np.zeros((0, 4)), np.zeros((4, 4), np.complex64), np.zeros((4, 4), np.int64)])
def test_tensors_that_hold_no_scores_are_refused(scores: Any) -> None:
    with pytest.raises(ms.ScoresError):
        ms.solve(scores, "2:4")


def test_zero_scores_are_optimal_and_retain_everything() -> None:
    solution = ms.solve(np.zeros((32, 32)), T816)
    assert (solution.gap, solution.retained, solution.objective) == (0.0, 1.0, 0.0)
    assert ms.verify(solution.mask, T816)


@pytest.mark.parametrize("solver", ["greedy", "sinkhorn", "min-cost-flow", "exact"])
def test_every_solver_brackets_the_optimum(solver: str) -> None:
    scores = np.abs(gaussian(64, 64))
    best = ms.solve(scores, T816, "exact").objective
    solution = ms.solve(scores, T816, solver)
    assert solution.objective <= best * (1 + 1e-12)
    assert solution.upper_bound >= best * (1 - 1e-12)
    assert solution.stats["solver"] == solver
    assert (solution.status is ms.Status.OPTIMAL) == (solution.gap == 0.0)


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"time_limit_s": np.nan}, "time_limit_s=nan"), ({"threads": 0}, "threads=0 must be at least")],
)
def test_limits_that_are_no_numbers_are_refused(options: dict[str, float], reason: str) -> None:
    scores = np.ones((8, 8))
    for call in (lambda: ms.solve(scores, "2:4", **options), lambda: ms.solve_many({"w": scores}, "2:4", **options)):
        with pytest.raises(ms.SolverError, match=reason):
            call()


def test_time_limit_hands_out_allowed_masks_and_says_so() -> None:
    scores = np.abs(gaussian(512, 512))
    solution = ms.solve(scores, T816, time_limit_s=1e-9)
    assert solution.status is ms.Status.TIME_LIMIT
    assert 0.0 < solution.gap < 1.0
    assert ms.verify(solution.mask, T816)
    assert solution.upper_bound >= ms.solve(scores, T816).objective


@pytest.mark.parametrize(
    ("pattern", "axis", "place", "tile"),
    [("transposable 2:4", "in", (9, 0), "2, 0"), ("1:4", "in", (7, 9), "7, 2"), ("1:4", "out", (9, 5), "5, 2")],
)
def test_an_entry_of_a_dense_edge_cannot_be_dropped(pattern: str, axis: str, place: tuple[int, int], tile: str) -> None:
    scores, drop = np.ones((10, 10)), np.zeros((10, 10), bool)
    rule = ms.parse(pattern, axis=axis, ragged="dense")
    drop[0, 0] = True
    assert not ms.solve(scores, rule, must_drop=drop).mask[0, 0]
    drop[place] = True
    with pytest.raises(ms.InfeasibleError, match=rf"'w', tile \[{tile}\]: an entry of the dense edge"):
        ms.solve(scores, rule, must_drop=drop, name="w")


def test_forced_entries_are_honoured_and_contradictions_named() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((32, 48))
    keep, drop = np.zeros(scores.shape, bool), np.zeros(scores.shape, bool)
    keep[::5, ::7], drop[1::5, 1::7] = True, True
    solution = ms.solve(scores, T816, must_keep=keep, must_drop=drop)
    assert solution.mask[keep].all()
    assert not solution.mask[drop].any()
    assert solution.objective < ms.solve(scores, T816).objective
    flow = ms.solve(scores, T816, "min-cost-flow", must_keep=keep, must_drop=drop)
    assert solution.objective == pytest.approx(flow.objective, rel=1e-12)
    assert (solution.gap, flow.gap) == (0.0, 0.0)
    with pytest.raises(ms.InfeasibleError, match=r"tile \[0, 0\]"):
        ms.solve(scores, T816, must_keep=keep, must_drop=keep)
    full = np.zeros(scores.shape, bool)
    full[20, 16:32] = True
    for solver in ("exact", "min-cost-flow"):
        with pytest.raises(ms.InfeasibleError, match=r"'w'.*tile \[1, 1\]"):
            ms.solve(scores, T816, solver, must_keep=full, name="w")
    with pytest.raises(ms.ScoresError, match="must_keep"):
        ms.solve(scores, T816, must_keep=keep[:16])


def test_hysteresis_holds_on_to_the_old_mask_and_stays_exact() -> None:
    old = ms.solve(np.abs(gaussian(64, 64)), T816)
    scores = np.abs(gaussian(64, 64) + 0.3 * gaussian(64, 64, seed=1))
    free = ms.solve(scores, T816, warm_start=old)
    sticky = ms.solve(scores, T816, warm_start=old, hysteresis=0.2)
    assert free.objective == ms.solve(scores, T816).objective
    assert (sticky.mask != old.mask).sum() < (free.mask != old.mask).sum()
    assert sticky.gap == 0.0
    assert sticky.unshifted_objective == pytest.approx(scores[sticky.mask].sum(dtype=np.float64))
    shifted = scores.astype(np.float64) + 0.2 * old.mask
    assert sticky.objective == pytest.approx(ms.solve(shifted, T816).objective, rel=1e-12)
    frozen = ms.solve(scores, T816, warm_start=old, hysteresis=100.0)
    np.testing.assert_array_equal(frozen.mask, old.mask)


@pytest.mark.parametrize("pattern", ["transposable 4:8", "4:8"])
@pytest.mark.parametrize("shape", [(20, 27), (16, 27), (20, 24), (5, 5)])
def test_hysteresis_adds_its_bonus_in_a_dense_edge_too(pattern: str, shape: tuple[int, int]) -> None:
    parsed = ms.parse(pattern, ragged="dense")
    scores, old = np.abs(gaussian(*shape)), np.random.default_rng(1).random(shape) < 0.5
    solution = ms.solve(scores, parsed, warm_start=old, hysteresis=0.25)
    shifted = scores.astype(np.float64) + 0.25 * old
    assert solution.objective == pytest.approx(shifted[solution.mask].sum(), rel=1e-12)
    assert solution.upper_bound == pytest.approx(ms.solve(shifted, parsed).upper_bound, rel=1e-12)


def test_warm_start_with_duals_gives_the_optimum() -> None:
    old = ms.solve(np.abs(gaussian(96, 64)), T816, keep_duals=True)
    assert old.duals is not None
    assert [part.shape for part in old.duals] == [(6, 4, 16), (6, 4, 16)]
    scores = np.abs(gaussian(96, 64) * (1 + 0.01 * gaussian(96, 64, seed=3)))
    warm, cold = ms.solve(scores, T816, warm_start=old), ms.solve(scores, T816)
    assert warm.gap == 0.0
    assert warm.objective == pytest.approx(cold.objective, rel=1e-12)


@pytest.mark.parametrize("other", ["transposable 4:8", "2:4"])
def test_duals_of_other_tiles_start_nothing(other: str) -> None:
    scores = np.abs(gaussian(64, 64))
    old = ms.solve(scores, other, keep_duals=True)
    warm, cold = ms.solve(scores, T816, warm_start=old, keep_duals=True), ms.solve(scores, T816, keep_duals=True)
    np.testing.assert_array_equal(warm.mask, cold.mask)
    assert warm.duals is not None
    assert cold.duals is not None
    assert warm.duals[0].tobytes() == cold.duals[0].tobytes()


def test_an_exact_solver_on_a_device_refuses_what_it_refuses_elsewhere() -> None:
    for device in (None, "cuda:0"):
        with pytest.raises(ms.SolverError, match="top-k"):
            ms.solve(np.ones((4, 4)), "2:4", ms.Exact(device=device))


def test_one_time_limit_holds_for_all_tensors_together(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    solved = vnm.solve_strip

    def record(scores: Any, n: int, m: int, limit: int, *rest: Any) -> None:
        seen.append(limit)
        time.sleep(0.05)
        solved(scores, n, m, limit, *rest)

    monkeypatch.setattr(vnm, "solve_strip", record)
    tensors = {name: np.abs(gaussian(8, 16, seed=number)) for number, name in enumerate("abc")}
    ms.solve_many(tensors, "8:2:8", time_limit_s=0.02)
    assert seen[1:] == [0, 0]


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_hysteresis_must_be_a_bonus(bad: float) -> None:
    with pytest.raises(ms.SolverError, match="hysteresis"):
        ms.solve(np.ones((16, 16)), T816, warm_start=np.ones((16, 16), bool), hysteresis=bad)
    with pytest.raises(ms.SolverError, match="warm_start"):
        ms.solve(np.ones((16, 16)), T816, hysteresis=1.0)
    for starts in (None, {}, {"other": np.ones((16, 16), bool)}):
        with pytest.raises(ms.SolverError, match="warm_start"):
            ms.solve_many({"w": np.ones((16, 16))}, T816, warm_start=starts, hysteresis=1.0)


@pytest.mark.parametrize(
    ("option", "error"), [("pattern", ms.PatternError), ("warm_start", ms.SolverError), ("layout", ms.PatternError)]
)
def test_names_without_scores_are_refused_by_name(option: str, error: type[Exception]) -> None:
    scores = {"layer.0.weight": np.ones((8, 8)), "layer.1.weight": np.ones((8, 8))}
    values = {"pattern": "2:4", "warm_start": np.ones((8, 8), bool), "layout": "in out"}
    options = {"pattern": "2:4", option: dict.fromkeys([*scores, "layer.1.wieght", "other"], values[option])}
    message = rf"a {option} is given .*: 'layer.1.wieght' \(did you mean 'layer.1.weight'\?\), 'other'; there are"
    with pytest.raises(error, match=message):
        ms.solve_many(scores, **options)


def test_unknown_and_unfit_solvers_are_refused() -> None:
    with pytest.raises(ms.SolverError, match="unknown solver"):
        ms.solve(np.ones((16, 16)), T816, "best")
    with pytest.raises(ms.SolverError):
        ms.solve(np.ones((16, 16)), T816, ms.TopK())
    with pytest.raises(ms.SolverError):
        ms.solve(np.ones((16, 16)), "2:4", ms.Exact())


def test_auto_says_what_it_would_run_and_why() -> None:
    assert isinstance(ms.Auto().select(ms.parse("2:4")).solver, ms.TopK)
    choice = ms.Auto().select(ms.parse(T816))
    assert isinstance(choice.solver, ms.Exact)
    assert choice.reason


def test_progress_counts_tiles_and_can_stop_the_solve() -> None:
    seen: list[tuple[int, int]] = []
    ms.solve(np.abs(gaussian(1024, 1024)), T816, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (4096, 4096)
    assert seen == sorted(seen)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ms.solve(np.abs(gaussian(1024, 1024)), T816, on_progress=stop)


def test_a_solver_that_breaks_the_pattern_is_caught() -> None:
    class Broken(ms.Exact):
        def __call__(self, panel: Any) -> Any:
            answer = super().__call__(panel)
            answer.mask[0, 0] = not answer.mask[0, 0]
            return answer

    with pytest.raises(ms.VerificationError, match=r"tile \[0, 0\]"):
        ms.solve(np.abs(gaussian(32, 32)), T816, Broken())


def test_processes_need_no_main_guard() -> None:
    code = (
        "import masksmith as ms, numpy as np\n"
        "s = ms.solve(np.random.default_rng(0).random((64, 64)), 'transposable 8:16', 'min-cost-flow', threads=2)\n"
        "print(s.status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "optimal"
