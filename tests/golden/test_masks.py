"""Masks, objectives, bounds and refusals are those of version 0.1, bit for bit; Sinkhorn's objectives to 0.1 %."""

import json
from pathlib import Path

import pytest
from golden.mask_cases import SLOW_KINDS, Case, cases
from golden.scores import KINDS
from support.axes import is_long_run

TRUTHS = json.loads((Path(__file__).parent / "masks.json").read_text())
CASES = cases()
GROUPS: dict[str, list[Case]] = {}
for _case in CASES:
    GROUPS.setdefault(_case.group, []).append(_case)
# Each size of tiles, and each budget other than half of it, has kernels of its own, which take long to compile.
LONG_GROUPS = {
    f"patterns: transposable {budgets}{kind}"
    for budgets in ("1:4", "16:32", "<=16:32", "8:16 x 4:8", "<=8:16 x 3:8")
    for kind in ("", " dense")
}


def is_in_every_run(case: Case) -> bool:
    """Whether `make test` solves a case: it leaves out scores and shapes that differ little from others."""
    kind, shape = case.what.split(" | ")[0], case.what.split(" | ")[-1]
    return kind not in KINDS or (kind in SLOW_KINDS and (shape != "64x96" or kind == "normal32"))


def differs(case: Case) -> bool:
    expected = TRUTHS.get(case.id) or TRUTHS[case.family]
    if "| sinkhorn" in case.id and "objective" in expected:
        # Its exponentials come from torch, whose last bits differ between processors.
        objective = float.fromhex(expected["objective"])
        return case.truth(approximate=True) != {"approximate_objective": pytest.approx(objective, rel=1e-3)}
    return case.truth() != expected


@pytest.mark.parametrize(
    "group", [pytest.param(group, marks=pytest.mark.slow if group in LONG_GROUPS else ()) for group in GROUPS]
)
def test_solutions_are_the_recorded_ones(group: str) -> None:
    cases_here = [case for case in GROUPS[group] if is_long_run() or is_in_every_run(case)]
    assert cases_here
    assert [case.id for case in cases_here if differs(case)] == []


def test_every_record_is_of_a_case() -> None:
    assert set(TRUTHS) <= {case.id for case in CASES} | {case.family for case in CASES}
    assert len({case.id for case in CASES}) == len(CASES)
