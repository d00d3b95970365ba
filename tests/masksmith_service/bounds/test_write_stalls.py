"""The timer of a response that its client does not read, with a clock that the test sets."""

import asyncio
from types import SimpleNamespace

import pytest

from masksmith_service.bounds.write_stalls import PROGRESS_BYTES, WriteStallTimer

STALL_S = 60.0


class Clock:
    """An event loop's timers, of which at most one runs."""

    def __init__(self):
        self.running = None

    def call_later(self, delay_s, call, *arguments):
        assert (self.running, delay_s) == (None, STALL_S)
        self.running = lambda: call(*arguments)
        return SimpleNamespace(cancel=lambda: setattr(self, "running", None))

    def run_out(self):
        self.running()


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
    return clock


@pytest.fixture
def stalls():
    return []


@pytest.fixture
def timer(stalls):
    return WriteStallTimer(STALL_S, lambda: stalls.append(1))


def transport_of(*sizes):
    """A transport whose write buffer has these sizes, one after the other."""
    return SimpleNamespace(get_write_buffer_size=iter(sizes).__next__)


@pytest.mark.parametrize("read", [0, PROGRESS_BYTES - 1])
def test_a_client_that_reads_too_little_has_stalled(clock, timer, stalls, read):
    timer.start(transport_of(10**6, 10**6 - read))
    assert stalls == []
    clock.run_out()
    assert stalls == [1]


def test_a_slow_reader_is_served_for_as_long_as_it_reads(clock, timer, stalls):
    sizes = [10**7 - number * PROGRESS_BYTES for number in range(101)]
    timer.start(transport_of(sizes[0], *(size for size in sizes[1:] for _ in range(2))))
    for _ in range(100):
        clock.run_out()
    assert stalls == []
    assert clock.running is not None


def test_no_timer_runs_once_writing_goes_on(clock, timer):
    timer.start(transport_of(10**6))
    timer.stop()
    assert clock.running is None


def test_a_client_that_reads_all_that_is_left_has_not_stalled(clock, timer, stalls):
    timer.start(transport_of(1000, 0, 0))
    clock.run_out()
    assert (stalls, clock.running) == ([], None)


def test_no_timer_runs_for_an_empty_buffer(clock, timer):
    timer.start(transport_of(0))
    assert not timer.is_running
