"""Limits of torch's threads that several threads need at once, and what a number of threads may be."""

import threading

import numpy as np
import pytest
import torch

import masksmith as ms
from masksmith._torch_threads import torch_threads

WEIGHT = np.random.default_rng(0).standard_normal((16, 32)).astype("f4")
GRAM = (lambda inputs: inputs.T @ inputs)(np.random.default_rng(1).standard_normal((200, 32)))
NUMBER_BEFORE = 4


@pytest.fixture(autouse=True)
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(NUMBER_BEFORE)
    yield
    torch.set_num_threads(before)


def counts():
    """The number of threads of torch in this thread, and in a new one."""
    seen = [torch.get_num_threads()]
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return seen


def overlapping(first, second):
    """Call `first` and `second`, each with a function to call inside: the first ends while the second is inside."""
    first_began, second_began, first_ended = threading.Event(), threading.Event(), threading.Event()

    def begun(event, other):
        if not event.is_set():
            event.set()
            assert other.wait(300)

    def run_first():
        first(lambda *_: begun(first_began, second_began))
        first_ended.set()

    def run_second():
        assert first_began.wait(300)
        second(lambda *_: begun(second_began, first_ended))

    threads = [threading.Thread(target=run) for run in (run_first, run_second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_updates_that_overlap_leave_the_number_as_it_was():
    def update(inside):
        ms.admm(WEIGHT, GRAM, "2:4", threads=1, on_progress=inside, max_rounds=2)

    overlapping(update, update)
    assert counts() == [NUMBER_BEFORE, NUMBER_BEFORE]


def test_contexts_may_be_nested():
    with torch_threads(2):
        with torch_threads(1):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2

        def within(inside):
            with torch_threads(3):
                inside()
            assert torch.get_num_threads() == NUMBER_BEFORE

        overlapping(within, within)
        assert torch.get_num_threads() == 2
    assert counts() == [NUMBER_BEFORE, NUMBER_BEFORE]


@pytest.mark.parametrize("threads", [1.5, True, "2"])
def test_what_is_no_number_of_threads_is_refused(threads):
    mask = np.tile([True, True, False, False], (16, 8))
    for error, call in (
        (ms.SolverError, lambda: ms.solve(abs(WEIGHT), "2:4", threads=threads)),
        (ms.UpdateError, lambda: ms.reconstruct(WEIGHT, mask, GRAM, threads=threads)),
        (ms.UpdateError, lambda: ms.admm(WEIGHT, GRAM, "2:4", threads=threads)),
    ):
        with pytest.raises(error, match=f"threads={threads!r} is not a whole number"):
            call()
    assert ms.solve(abs(WEIGHT), "2:4", threads=np.int64(1)).gap == 0
