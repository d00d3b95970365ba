"""Types of the numbers and times of responses, with bounds within which sums, time zones and texts cannot overflow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, Field

MAX_COUNT = 2**53
"""Limit of counts and sizes: JSON readers that use float64 read no larger whole number exactly."""
MAX_ZONE_OFFSET = timedelta(days=1)
"""Limit of the offsets of time zones from UTC."""


def _check_calendar(moment: datetime) -> datetime:
    try:
        for offset in (MAX_ZONE_OFFSET, -MAX_ZONE_OFFSET):
            _ = moment.astimezone(UTC) + offset
    except OverflowError:
        raise ValueError("the time is outside the years 1 to 9999 in UTC or in a time zone") from None
    return moment


Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
"""A number of things, or a size in bytes."""
Seconds = Annotated[float, Field(ge=0, le=MAX_COUNT)]
"""A duration; not NaN, and finite."""
Score = Annotated[float, Field(ge=0)]
"""A sum of scores; not NaN, but infinite if the sum overflows."""
Ratio = Annotated[float, Field(allow_inf_nan=False)]
"""A share or relative gap."""
Moment = Annotated[AwareDatetime, AfterValidator(_check_calendar)]
"""A time with an offset from UTC, which exists in every time zone."""
