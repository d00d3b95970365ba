"""Totals over the reports of a job."""

import json
import math

import pytest

from masksmith_wire import pruned_record
from masksmith_wire.documents import JobState, TensorReport
from masksmith_wire.errors import Code, TensorError
from masksmith_wire.totals import relative_gap, total, total_retained

INF = math.inf


def solved(objective, bound, *, score=None, shape=(10, 10), **changes):
    return TensorReport(
        name="w", state=JobState.SUCCEEDED, shape=list(shape), status="optimal", objective=objective,
        upper_bound=bound, gap=relative_gap(objective, bound),
        retained=objective / (score or 2 * objective) if objective else 1.0, density=0.5, solve_s=0.25,
    ).model_copy(update=changes)  # fmt: skip


FAILED = TensorReport(
    name="bad", state=JobState.FAILED, shape=[999, 999], error=TensorError(code=Code.INVALID_SCORES, message="NaN")
)
QUEUED = TensorReport(name="later", state=JobState.QUEUED, shape=[999, 999])


def test_shares_are_weighted():
    totals = total([solved(2.0, 2.0), solved(4.0, 5.0, score=16.0, shape=(10, 30), density=0.25), FAILED, QUEUED])
    assert (totals.solved_count, totals.failed_count, totals.optimal_count, totals.entries) == (2, 1, 2, 400)
    assert totals.retained == pytest.approx(6 / 20)
    assert totals.gap == pytest.approx(1 / 7)
    assert totals.density == pytest.approx((50 + 75) / 400)
    assert totals.solve_s == 0.5


@pytest.mark.parametrize(
    ("pairs", "gap"),
    [
        ([(0.1, 0.1), (0.2, 0.2), (0.7, 0.7)], 0.0),
        ([(1e308, 1e308)] * 3, 0.0),
        ([(1.5e308, 1.7e308)] * 2, 2 / 17),
        ([(5e-324, 5e-324)], 0.0),
        ([(0.0, 0.0)], 0.0),
        ([(0.0, 0.0), (3.0, 4.0)], 0.25),
        ([(0.0, 1.0)], 1.0),
        ([(3.0, INF)], 1.0),
        ([(3.0, None)], 1.0),
        ([(0.0, 0.0), (3.0, 3.0), (1.0, INF)], 1.0),
    ],
    ids=str,
)
def test_the_gap_of_all(pairs, gap):
    totals = total([solved(*pair) for pair in pairs])
    assert totals.gap == (0.0 if gap == 0.0 else pytest.approx(gap))
    # JSON has no infinity: what was one arrives as a null.
    travelled = [TensorReport.model_validate_json(solved(*pair).model_dump_json()) for pair in pairs]
    assert total(travelled) == totals


@pytest.mark.parametrize("reports", [[], [FAILED], [QUEUED, FAILED]], ids=len)
def test_without_masks_there_are_no_shares(reports):
    totals = total(reports)
    assert (totals.density, totals.retained, totals.gap) == (None, None, None)
    assert (totals.solved_count, totals.entries, totals.solve_s) == (0, 0, 0.0)
    assert totals.failed_count == reports.count(FAILED)


def test_numbers_that_are_missing_count_as_nothing():
    bare = TensorReport(name="w", state=JobState.SUCCEEDED, shape=[4, 4], objective=3.0)
    totals = total([bare, solved(2.0, 2.0)])
    assert (totals.retained, totals.gap, totals.solve_s) == (0.5, 1.0, 0.25)
    assert totals.density == pytest.approx(50 / 116)


@pytest.mark.parametrize(
    ("masks", "retained"),
    [
        ([], None),
        ([(0.0, 1.0, None)], None),
        ([(1.0, 0.5, None), (0.0, 0.0, None), (None, None, None)], 0.5),
        ([(1e308, 0.9, None)] * 9, 0.9),
        ([(1e308, 0.9, 1.2e308)] * 9, 0.9),
        ([(0.0, 1.0, 0.0)], None),
        ([(0.0, 0.0, 3.0), (1.0, 1.0, 1.0)], 0.25),
        # Objectives with a bonus of hysteresis, or of norms of blocks, are no kept scores.
        ([(70.0, 0.25, 8.0), (0.1, 0.75, 24.0)], 20 / 32),
    ],
)
def test_the_score_that_all_keep(masks, retained):
    assert total_retained(masks) == (None if retained is None else pytest.approx(retained))


@pytest.mark.parametrize(
    ("objective", "bound", "gap"), [(3.0, 4.0, 0.25), (0.0, 0.0, 0.0), (1.0, INF, 1.0), (1.0, None, 1.0)]
)
def test_the_gap_of_one(objective, bound, gap):
    assert relative_gap(objective, bound) == gap


def test_sums_of_a_record_beyond_float64_are_missing_and_the_gap_is_known():
    tensor = {
        "masked": True,
        "shape": [1],
        "objective": 1.2e308,
        "upper_bound": 1.5e308,
        "kept": 1,
        "status": "feasible",
    }
    record = pruned_record.totals([tensor, tensor])
    assert (record["objective"], record["upper_bound"]) == (None, None)
    assert record["gap"] == pytest.approx(0.2)
    assert pruned_record.totals([tensor])["objective"] == 1.2e308
    assert pruned_record.totals([{"masked": False, "shape": [1]}])["gap"] == 0.0
    json.dumps(pruned_record.totals([tensor | {"upper_bound": INF}]), allow_nan=False)
