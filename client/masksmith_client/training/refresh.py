"""Settings of mask refreshes: interval, begin and end, waiting, timeout, processors of the refresh process."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from numbers import Integral

from masksmith_client._errors import InputError

from .methods.numbers import check_integer, check_not_negative


@dataclass(frozen=True)
class Refresh:
    """Settings of mask refreshes.

    Attributes:
        every: Optimizer steps between two refreshes, at least 1; refreshes are due at the multiples of this number.
        begin: Step from which on refreshes are due; before this step, masks are requested only if a layer has none.
        until: Step from which on masks do not change any more; masks are then requested only if a layer has none, and
            also if the schedule has changed the pattern since. None: there is no such step.
        wait: Whether `Sparsifier.step` waits for the masks and applies them at once, which makes training reproducible.
        timeout_s: Seconds after which a request to a service is canceled; a function has no timeout.
        cores: Numbers of the processors that the refresh process may use; default those of the training process.
            Ignored if no such process is started, as with `wait`.

    Raises:
        InputError: If a number is out of range, `until` is less than `begin`, or `cores` are no numbers of processors
            or cannot be set on this operating system. Processors that the computer lacks are refused at the first
            request.
    """

    every: int = 100
    begin: int = 0
    until: int | None = None
    wait: bool = False
    timeout_s: float = 300.0
    cores: Collection[int] | None = None

    def __post_init__(self) -> None:
        check_integer("refresh: every", self.every, 1)
        check_integer("refresh: begin", self.begin, 0)
        if self.until is not None:
            check_integer("refresh: until", self.until, 0)
            if self.until < self.begin:
                raise InputError(f"refresh: until={self.until} is before begin={self.begin}")
        if self.cores is not None:
            _check_cores(self.cores)
        check_not_negative("refresh: timeout_s", self.timeout_s)
        if self.timeout_s == 0:
            raise InputError("refresh: timeout_s=0 must be positive")

    def is_due(self, step: int) -> bool:
        """Whether a refresh is due after this many optimizer steps, by the interval, `begin` and `until` alone."""
        has_ended = self.until is not None and step >= self.until
        return step >= self.begin and step % self.every == 0 and not has_ended


def _check_cores(cores: Collection[int]) -> None:
    is_collection = isinstance(cores, Collection) and not isinstance(cores, str) and len(cores) > 0
    # Integers of numpy are `Integral`, but no `int`.
    if not is_collection or not all(isinstance(core, Integral) and core >= 0 for core in cores):
        raise InputError(f"refresh: cores={cores!r} must be numbers of processors, such as [0, 1]")
    if not hasattr(os, "sched_setaffinity"):
        raise InputError("refresh: cores cannot be set on this operating system; leave it out")


def as_refresh(refresh: int | Refresh | None) -> Refresh | None:
    """Convert the argument of `Sparsifier(refresh=...)`: an interval, a `Refresh`, or None, which stays None.

    Raises:
        InputError: If the interval is out of range.
    """
    if refresh is None or isinstance(refresh, Refresh):
        return refresh
    return Refresh(every=refresh)
