"""Bounds of the numbers and times of responses."""

from datetime import UTC, datetime

import pytest
from pydantic import TypeAdapter, ValidationError

from masksmith_wire.values import MAX_COUNT, Count, Moment, Ratio, Score, Seconds

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(("kind", "valid", "invalid"), [
    (Count, [0, MAX_COUNT], [-1, MAX_COUNT + 1, 0.5]),
    (Seconds, [0, 0.5, 1e9], [-0.5, 1e300, INF, NAN]),
    (Score, [0, 1e300, INF], [-1, NAN]),
    (Ratio, [-1e-17, 0.5, 1], [INF, -INF, NAN]),
    (Moment, ["2026-01-31T12:00:00Z", "0001-01-03T00:00:00+14:00", "9999-12-30T00:00:00Z", 1.5],
     ["9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "2026-01-31T12:00:00", "junk"]),
])  # fmt: skip
def test_values_outside_the_bounds_are_refused(kind, valid, invalid):
    adapter = TypeAdapter(kind)
    for value in valid:
        adapter.validate_python(value)
    for value in invalid:
        with pytest.raises(ValidationError):
            adapter.validate_python(value)


def test_a_moment_keeps_its_offset():
    moment = TypeAdapter(Moment).validate_python("2026-01-31T12:00:00+02:00")
    assert moment == datetime(2026, 1, 31, 10, tzinfo=UTC)
    assert moment.isoformat() == "2026-01-31T12:00:00+02:00"
