"""Which pattern counts when."""

import pytest
import torch
from support.training_loop import WAITING, obeys, perceptron, train

import masksmith as ms
from masksmith_client import ClientError, InputError
from masksmith_client.training import CubicDensity, DensePhases, FallingN, Fixed, Refresh, Schedule, Sparsifier


def densities(sparsifier):
    return {layer.density for layer in sparsifier.report().layers}


def test_a_dense_warm_up_and_a_dense_tail(model, optimizer):
    seen = []
    schedule = DensePhases(warm_up=6, tail_from=15)
    with Sparsifier(model, "transposable 2:4", ms.solve, WAITING, schedule=schedule) as sparsifier:
        assert densities(sparsifier) == {1.0}
        train(model, optimizer, sparsifier, 20, lambda step: seen.append(densities(sparsifier)))
        assert seen == [{1.0}] * 5 + [{0.5}] * 9 + [{1.0}] * 6
        assert [record.asked_at for record in sparsifier.report().refreshes] == [6, 8, 12]
        with pytest.raises(InputError, match="layers are dense at step 20"):
            sparsifier.refresh_now()
        sparsifier.bake()
    assert (model[2].weight != 0).all()


@pytest.mark.parametrize("in_place", [False, True])
def test_states_of_a_dense_tail_are_dense(model, optimizer, in_place):
    options = {"schedule": DensePhases(tail_from=3), "in_place": in_place}
    sparsifier = Sparsifier(model, "2:4", ms.solve, WAITING, Fixed(), **options)
    train(model, optimizer, sparsifier, 6)
    masked = {name: value.clone() for name, value in model.state_dict().items()}
    sparsifier.mask_state_dict(masked, model)
    for state in (sparsifier.plain_state_dict(), masked):
        assert all(bool((state[name] != 0).all()) for name in sparsifier.masks)


def test_an_answer_that_comes_in_a_dense_phase_counts_for_nothing(model, optimizer):
    schedule = DensePhases(tail_from=3)
    sparsifier = Sparsifier(model, "2:4", lambda *given: ms.solve(*given), Refresh(2), schedule=schedule)
    train(model, optimizer, sparsifier, 2)
    train(model, optimizer, sparsifier, 1)
    while sparsifier._refresher.pending is not None:
        sparsifier.step()
    assert densities(sparsifier) == {1.0}
    assert len(sparsifier.report().refreshes) <= 2


class DenseBetween(Schedule):
    """Dense at steps 3 to 5, sparse before and after them."""

    def pattern_at(self, pattern, step):
        return None if 3 <= step <= 5 else pattern


def test_a_layer_whose_weight_does_not_change_is_sparse_again_after_a_dense_phase(model):
    refresh = Refresh(every=2, wait=True)
    sparsifier = Sparsifier(model, "2:4", ms.solve, refresh, schedule=DenseBetween())
    seen = []
    for _ in range(8):
        sparsifier.step()
        seen.append(densities(sparsifier))
    assert seen == [{0.5}] * 2 + [{1.0}] * 3 + [{0.5}] * 3


def test_a_cubic_density(model, optimizer):
    schedule = CubicDensity(begin=0, end=16)
    sparsifier = Sparsifier(model, "20%", ms.solve, WAITING, Fixed(), schedule=schedule)
    seen = []
    train(model, optimizer, sparsifier, 24, lambda step: seen.extend(densities(sparsifier)) if step % 4 == 3 else None)
    expected = [0.2 + 0.8 * (1 - min(step / 16, 1)) ** 3 for step in range(4, 28, 4)]
    assert seen == pytest.approx(expected, abs=1 / 1024)


@pytest.mark.parametrize(
    ("refresh", "expected"),
    [
        (None, [7] * 9 + [6] * 10 + [5] * 10 + [4] * 10 + [3] * 10 + [2] * 21),
        (Refresh(every=8, until=20, wait=True), [7] * 15 + [6] * 8 + [5] * 8 + [4] * 8 + [3] * 10 + [2] * 21),
    ],
    ids=["none", "until"],
)
def test_masks_get_the_final_pattern_though_refreshes_have_ended(model, optimizer, refresh, expected, caplog):
    sparsifier = Sparsifier(model, "2:8", ms.solve, refresh, schedule=FallingN(begin=0, end=60))
    seen = []
    train(model, optimizer, sparsifier, 70, lambda step: seen.extend(densities(sparsifier)))
    assert [8 * density for density in seen] == expected
    sparsifier.bake()
    assert ms.verify(model[2].weight != 0, "2:8")
    assert not caplog.records


def test_a_pattern_for_which_masks_fail_is_requested_again_after_an_interval(model):
    calls = []

    def solve(scores, pattern):
        calls.append(str(pattern))
        if str(pattern) == "2:4":
            raise ConnectionError("gone")
        return ms.solve(scores, pattern)

    refresh = Refresh(every=4, until=0, wait=True)
    sparsifier = Sparsifier(model, "2:4", solve, refresh, schedule=FallingN(begin=0, end=4))
    failed = []
    for _ in range(10):
        try:
            sparsifier.step()
        except ClientError:
            failed.append(sparsifier.report().step)
    assert failed == [2, 6, 10]


def test_masks_of_another_pattern_are_baked_with_a_warning(model, optimizer, caplog):
    sparsifier = Sparsifier(model, "2:8", ms.solve, Refresh(every=40, wait=True), schedule=FallingN(begin=0, end=60))
    train(model, optimizer, sparsifier, 70)
    sparsifier.bake()
    [record] = caplog.records
    assert "have the pattern 3:8, not 2:8: call refresh_now() before bake()" in record.getMessage()


def test_a_density_that_rounds_to_nothing_is_the_final_one():
    assert CubicDensity(begin=0, end=16).pattern_at(ms.parse("0.00001%"), 15).density == pytest.approx(2.4e-4, rel=0.1)
    nearly_final = CubicDensity(begin=0, end=1000, start=2e-7).pattern_at(ms.parse("0.00001%"), 999)
    assert nearly_final.density == ms.parse("0.00001%").density


@pytest.mark.parametrize("pattern", ["2:8", "transposable 2:8"])
def test_n_falls_from_m(pattern):
    model = perceptron()
    schedule = FallingN(begin=4, end=28)
    with Sparsifier(model, pattern, ms.solve, WAITING, schedule=schedule, in_place=True, method=Fixed()) as sparsifier:
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        train(model, optimizer, sparsifier, 3)
        assert densities(sparsifier) == {1.0}
        for n in (7, 6, 5, 4, 3, 2, 2):
            train(model, optimizer, sparsifier, 1)
            now = pattern.replace("2:8", f"{n}:8")
            assert sparsifier.report().pattern == now
            assert obeys(sparsifier, now)
            train(model, optimizer, sparsifier, 3)
        # In place, what was pruned once stays pruned: the last mask lies within all others.
        assert all((layer.retained or 0) > 0.99 for layer in sparsifier.report().layers)


def test_n_of_tiles_that_are_no_squares_falls_where_both_counts_are_whole():
    pattern = ms.parse("transposable 2:8 x 1:4")
    schedule = FallingN(begin=0, end=30)
    found = [str(schedule.pattern_at(pattern, step)) for step in (0, 10, 20, 30)]
    assert found == ["transposable 6:8 x 3:4", "transposable 4:8 x 2:4", *["transposable 2:8 x 1:4"] * 2]


def test_schedules_nest():
    schedule = DensePhases(warm_up=10, tail_from=50, between=CubicDensity(begin=10, end=30, start=0.8))
    pattern = ms.parse("20%")
    found = [schedule.pattern_at(pattern, step) for step in (9, 10, 30, 50)]
    assert [None if one is None else str(one) for one in found] == [None, "80%", "20%", None]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CubicDensity(begin=5, end=5), "begin=5 must be at least 0 and less than end=5"),
        (lambda: CubicDensity(begin=0, end=5, start=1.5), "start=1.5 must lie in"),
        (lambda: DensePhases(warm_up=5, tail_from=4), "warm_up=5 must be at least 0 and less than tail_from=4"),
        (lambda: CubicDensity(0, 9).check(ms.parse("2:4")), "not 2:4; use FallingN for n:m"),
        (lambda: CubicDensity(0, 9).check(ms.parse("hybrid 4x4 2:4 50%")), "not hybrid 4x4 2:4 50%; use FallingN"),
        (lambda: CubicDensity(0, 9, start=0.1).check(ms.parse("20%")), "start=0.1 is less than the density of 20%"),
        (lambda: DensePhases(between=FallingN(0, 9)).check(ms.parse("20%")), "FallingN needs an n:m pattern, not 20%"),
    ],
)
def test_schedules_that_lead_nowhere_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
