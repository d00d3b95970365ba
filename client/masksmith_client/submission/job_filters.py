"""Filters of a list of jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, TypedDict

from masksmith_client._errors import InputError


class JobFilters(TypedDict, total=False):
    """Filters of a list of jobs; a job is listed if it passes all filters that are given.

    Attributes:
        name: Text that the job's name contains; upper and lower case are equal.
        key: Id or name of the API key that owns the jobs; only an admin's key may list the jobs of another key.
        kind: `masks` or `benchmark`.
        state: The job's state, or several states; the job must have one of them.
        labels: Labels by key; the job must have all of them. The value None matches any value.
        since: Earliest time of creation; local time if it has no time zone.
        until: Latest time of creation; local time if it has no time zone.
    """

    name: str | None
    key: str | None
    kind: Literal["masks", "benchmark"] | None
    state: str | Sequence[str]
    labels: Mapping[str, str | None]
    since: datetime | None
    until: datetime | None


def filter_parameters(filters: JobFilters) -> dict[str, str | Sequence[str]]:
    """Return the parameters of the request for a list; filters that are None or empty are left out.

    Raises:
        TypeError: If a filter has an unknown name. If it were ignored, too many jobs would be listed.
        InputError: If `since` or `until` is not a `datetime`, or is too early or too late for the local time zone.
    """
    unknown = filters.keys() - JobFilters.__annotations__.keys()
    if unknown:
        raise TypeError(f"unexpected filter {min(unknown)!r}")
    parameters: dict[str, str | Sequence[str]] = {}
    for parameter in ("name", "key", "kind"):
        if filters.get(parameter):
            parameters[parameter] = str(filters[parameter])
    if state := filters.get("state"):
        parameters["state"] = [state] if isinstance(state, str) else list(state)
    if labels := filters.get("labels"):
        parameters["label"] = [label if value is None else f"{label}={value}" for label, value in labels.items()]
    for parameter in ("since", "until"):
        moment = filters.get(parameter)
        if moment is None:
            continue
        if not isinstance(moment, datetime):
            raise InputError(f"{parameter}={moment!r} is not a datetime")
        try:
            parameters[parameter] = moment.astimezone().isoformat()
        except (OverflowError, ValueError):
            raise InputError(f"{parameter}={moment!r} is not in the years 1 to 9999 in local time") from None
    return parameters
