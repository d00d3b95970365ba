"""The thread pool whose caller works too."""

import itertools
import threading
import time

import pytest

from masksmith._engine.thread_pool import CallerRunsPool


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_everything_is_done_once(threads):
    begun = []
    assert sorted(CallerRunsPool(begun.append, range(200)).run(threads)) == list(range(200))
    assert sorted(begun) == list(range(200))


def test_the_caller_works_beside_its_helpers():
    meet = threading.Barrier(3, timeout=300)
    seen = set()

    def work(_):
        seen.add(threading.current_thread())
        meet.wait()

    assert len(list(CallerRunsPool(work, range(6)).run(3))) == 6
    assert threading.current_thread() in seen
    assert len(seen) == 3


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_failure_in_the_line_is_raised_and_nothing_is_begun_after_it(threads):
    begun = []

    def work(number):
        begun.append(number)
        if number == 4:
            time.sleep(0.05)
            raise KeyError(number)
        if number == 5:
            raise ValueError(number)

    with pytest.raises(KeyError, match="4"):
        list(CallerRunsPool(work, range(1_000_000)).run(threads))
    assert len(begun) < 1_000_000


class Endless:
    """More items than any machine processes in the course of a test."""

    def __iter__(self):
        return itertools.count()


def test_who_stops_listening_stops_the_work():
    begun = []
    run = CallerRunsPool(begun.append, Endless()).run(2)
    next(run)
    run.close()
    count = len(begun)
    time.sleep(0.02)
    assert count == len(begun)
