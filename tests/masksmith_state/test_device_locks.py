"""Device locks: searches share a device, a benchmark holds it alone, and none of them waits for ever."""

import threading
import time
from contextlib import ExitStack

import pytest

from masksmith_state.device_locks.locks import DeviceLock
from masksmith_state.jobs.records import JobRecords


class GivenUpError(Exception):
    pass


def give_up():
    raise GivenUpError


def nothing():
    pass


@pytest.fixture
def device(records):
    return DeviceLock(records.redis, "cpu-test", lease_s=5.0)


def test_searches_share_a_device(device):
    with device.shared(give_up), device.shared(give_up):
        pass


def test_a_benchmark_waits_for_running_searches_and_blocks_new_ones(device):
    began, over = threading.Event(), threading.Event()

    def measure():
        with device.exclusive(nothing) as intact:
            assert intact()
            began.set()
            over.wait(10)

    with device.shared(give_up):
        bench = threading.Thread(target=measure)
        bench.start()
        # It is announced at once: who comes later waits, though the benchmark has not begun.
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                with device.shared(give_up):
                    time.sleep(0.01)
            except GivenUpError:
                break
        else:
            pytest.fail("the benchmark keeps nobody off")
        assert not began.is_set()
    assert began.wait(5)
    with pytest.raises(GivenUpError), device.shared(give_up):
        pass
    over.set()
    bench.join()
    with device.shared(give_up):
        pass


def test_two_benchmarks_never_overlap(valkey, records):
    inside, worst, lock = [], [], threading.Lock()

    def measure():
        own = JobRecords(valkey.url)
        for _ in range(5):
            with DeviceLock(own.redis, "cpu-test", 5.0).exclusive(nothing):
                with lock:
                    inside.append(1)
                    worst.append(len(inside))
                time.sleep(0.02)
                with lock:
                    inside.pop()

    threads = [threading.Thread(target=measure) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(worst) == 20
    assert max(worst) == 1


def test_locks_of_two_devices_are_independent(records, device):
    with device.exclusive(give_up), DeviceLock(records.redis, "gpu-test").exclusive(give_up):
        pass


def test_a_dead_process_loses_its_device_lock(records):
    dead = DeviceLock(records.redis, "cpu-test", lease_s=0.3)
    # As a killed process leaves it: claimed, and nobody renews.
    assert dead._run("acquire_exclusive", "dead", 300) == 2
    begun = time.monotonic()
    with dead.exclusive(nothing):
        assert 0.1 < time.monotonic() - begun < 5


def test_a_long_hold_is_renewed(records):
    device = DeviceLock(records.redis, "cpu-test", lease_s=0.5)
    with device.exclusive(nothing) as intact:
        time.sleep(1.5)
        assert intact()
        with pytest.raises(GivenUpError), device.shared(give_up):
            pass


def test_a_lost_hold_is_noticed(records, device):
    with device.exclusive(nothing) as intact:
        records.redis.delete("masksmith:device:cpu-test:exclusive")
        assert not intact()


def test_a_wait_that_is_given_up_leaves_no_state(device):
    with device.shared(give_up):
        with pytest.raises(GivenUpError), device.exclusive(give_up):
            pass
        with device.shared(give_up):
            pass


def test_searches_get_a_turn_between_two_cases(records, device):
    turns = []

    def search():
        with device.shared(nothing):
            turns.append(time.monotonic())

    thread = threading.Thread(target=search)
    with ExitStack() as stack:
        stack.enter_context(device.exclusive(nothing))
        thread.start()
        deadline = time.monotonic() + 5
        while not records.redis.exists("masksmith:device:cpu-test:waiting"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    with device.exclusive(nothing):
        second = time.monotonic()
    thread.join(5)
    assert turns
    assert turns[0] < second
