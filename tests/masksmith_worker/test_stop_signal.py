"""The signal that makes a process stop may come at any moment, also while it waits, and several times."""

import signal
import sys
import threading
from types import SimpleNamespace

import pytest
from obstore.exceptions import GenericError

from masksmith_worker import part_runner
from masksmith_worker.lease import StoppedError


@pytest.fixture
def deadline():
    """Raise an error in the main thread, also in one that waits for a lock, after a minute."""

    def fail(*_):
        raise AssertionError("the process waits for ever")

    handler = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, 60)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, handler)


def test_a_signal_at_every_line_of_a_wait_stops_the_process(runner_with, monkeypatch, deadline):
    runner, files = runner_with(store_patience_s=1000.0), {threading.__file__, part_runner.__file__}
    monkeypatch.setattr(part_runner, "STORE_RETRY_S", 0.01)

    def fail(*_):
        raise GenericError("full")

    def interrupt(frame, event, _):
        if frame.f_code.co_filename not in files:
            return None
        signal.raise_signal(signal.SIGUSR2)
        return interrupt

    monkeypatch.setattr(runner, "work", fail)
    handler = signal.signal(signal.SIGUSR2, lambda *_: runner.stopping.set())
    trace = sys.gettrace()
    try:
        sys.settrace(interrupt)
        with pytest.raises(StoppedError):
            runner._work_with_retries(SimpleNamespace(job="j", shard=0), 0.0, runner._check_stopping)
    finally:
        sys.settrace(trace)
        signal.signal(signal.SIGUSR2, handler)
