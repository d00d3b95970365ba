"""Certificates of tensors, summed from the reports of their shards."""

import math

import pytest

from masksmith_state.jobs.certificates import certificate
from masksmith_state.jobs.reports import ShardReport
from masksmith_wire.measures import UpdateReport


def report(objective, total, energy=1.0):
    update = UpdateReport(error=energy, masked_error=energy, energy=energy, update_s=1.0)
    return ShardReport(
        result="a", status="optimal", objective=objective, upper_bound=objective, total_score=total, kept=1, entries=2,
        update=update,
    )  # fmt: skip


def test_sums_beyond_float64_are_infinite_and_shares_are_known():
    members = certificate([report(1.2e308, 1.6e308, 1.5e308)] * 2)
    assert (members["objective"], members["upper_bound"], members["total_score"]) == (math.inf,) * 3
    assert (members["gap"], members["retained"]) == (1.0, pytest.approx(0.75))
    assert members["update"].energy == math.inf


def test_the_kept_share_is_that_of_the_exact_sums():
    assert certificate([report(1.0, 2.0), report(2.0, 4.0)])["retained"] == 0.5
    assert certificate([report(0.0, 0.0)])["retained"] == 1.0
