"""Device locks: searches share a device, a benchmark holds it alone, and none of them waits for ever."""

import threading
import time
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from support.processes import poll

from masksmith_state.device_locks import locks
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
    return DeviceLock(records.redis, "cpu-test", lease_s=60.0)


def test_searches_share_a_device(device):
    with device.shared(give_up), device.shared(give_up):
        pass


def test_a_benchmark_waits_for_running_searches_and_blocks_new_ones(device):
    began, over = threading.Event(), threading.Event()

    def measure():
        with device.exclusive(nothing) as intact:
            assert intact()
            began.set()
            over.wait(300)

    with device.shared(give_up):
        bench = threading.Thread(target=measure)
        bench.start()
        # It is announced at once: who comes later waits, though the benchmark has not begun.
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            try:
                with device.shared(give_up):
                    time.sleep(0.01)
            except GivenUpError:
                break
        else:
            pytest.fail("the benchmark keeps nobody off")
        assert not began.is_set()
    assert began.wait(300)
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
            with DeviceLock(own.redis, "cpu-test", 60.0).exclusive(nothing):
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
        thread.join(300)
    assert len(worst) == 20
    assert max(worst) == 1


def test_locks_of_two_devices_are_independent(records, device):
    with device.exclusive(give_up), DeviceLock(records.redis, "gpu-test").exclusive(give_up):
        pass


def test_a_dead_process_loses_its_device_lock(records):
    dead = DeviceLock(records.redis, "cpu-test", lease_s=0.3)
    # As a killed process leaves it: claimed, and nobody renews.
    begun = time.monotonic()
    assert dead._run("acquire_exclusive", "dead", 300) == 2
    with dead.exclusive(nothing):
        assert time.monotonic() - begun > 0.25


def test_a_dead_benchmark_loses_the_device_also_if_the_clock_is_set_back(records):
    device, key = DeviceLock(records.redis, "cpu-test", lease_s=0.3), "masksmith:device:cpu-test:exclusive"
    with ExitStack() as stack:
        stack.enter_context(device.exclusive(give_up))
        token = records.redis.get(key)
    deadline = time.monotonic() + 60

    def check():
        assert time.monotonic() < deadline

    # As a killed process leaves it, and the expiry is that of a clock that was ahead by an hour.
    records.redis.set(key, token, px=3600_000)
    with device.shared(check):
        pass
    records.redis.set(key, token, px=3600_000)
    with device.exclusive(check) as is_held:
        assert is_held()


def test_a_search_does_not_count_as_waiting_for_long_if_the_clock_is_set_back(records):
    device, key = DeviceLock(records.redis, "cpu-test"), "masksmith:device:cpu-test:waiting"
    with device.exclusive(give_up), pytest.raises(GivenUpError), device.shared(give_up):
        pass
    assert records.redis.pttl(key) > 0
    records.redis.pexpire(key, 3600_000)
    with device.exclusive(nothing):
        assert records.redis.pttl(key) <= locks.WAITING_MS


def test_a_dead_process_loses_its_device_lock_also_if_the_clock_is_set_back(records):
    device, key = DeviceLock(records.redis, "cpu-test", lease_s=0.3), "masksmith:device:cpu-test:shared"
    # As a killed process leaves it, whose lease was given before the clock was set back by an hour.
    ahead_ms = (records.now() + 3600) * 1000
    records.redis.zadd(key, {"dead": ahead_ms})
    deadline = time.monotonic() + 300

    def check():
        assert time.monotonic() < deadline
        assert records.redis.zscore(key, "dead") < ahead_ms - 3_500_000

    with device.exclusive(check) as is_held:
        assert is_held()


def test_a_running_search_keeps_its_own_lease_if_the_clock_is_set_back(records, device):
    key = "masksmith:device:cpu-test:shared"
    with device.shared(give_up):
        [token] = records.redis.zrange(key, 0, -1)
        records.redis.zadd(key, {token: (records.now() + 3600) * 1000})
        with pytest.raises(GivenUpError), DeviceLock(records.redis, "cpu-test", lease_s=0.3).exclusive(give_up):
            pass
        assert records.now() + 30.0 < records.redis.zscore(key, token) / 1000 <= records.now() + 60.0


def test_a_long_hold_is_renewed(records):
    device, key = DeviceLock(records.redis, "cpu-test", lease_s=10.0), "masksmith:device:cpu-test:exclusive"
    with device.exclusive(nothing) as intact:
        for _ in range(2):
            records.redis.pexpire(key, 8000)
            poll(lambda: records.redis.pttl(key) > 8000)
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


def test_searches_get_a_turn_between_two_cases(records, device, monkeypatch):
    turns, pauses = [], []

    def pause(seconds):
        if seconds > locks.POLL_S:
            # That of the second benchmark, in which the search, which looks more often, has its turn.
            pauses.append(seconds)
            poll(lambda: turns)
        time.sleep(seconds)

    monkeypatch.setattr(locks, "time", SimpleNamespace(monotonic=time.monotonic, sleep=pause))
    monkeypatch.setattr(locks, "WAITING_MS", 300_000)

    def search():
        with device.shared(nothing):
            turns.append(time.monotonic())

    thread = threading.Thread(target=search)
    with ExitStack() as stack:
        stack.enter_context(device.exclusive(nothing))
        thread.start()
        poll(lambda: records.redis.exists("masksmith:device:cpu-test:waiting"))
    with device.exclusive(nothing):
        second = time.monotonic()
    thread.join(300)
    assert turns[0] < second
    assert len(pauses) == 1


def test_a_benchmark_that_holds_a_device_for_too_long_loses_it(records, monkeypatch):
    """At once, not after its lease: that would take an hour."""
    device = DeviceLock(records.redis, "cpu-test", lease_s=3600.0)
    monkeypatch.setattr(locks, "EXCLUSIVE_LIMIT_S", 0.2)
    with device.exclusive(nothing) as intact, device.shared(nothing):
        assert not intact()


WAITING = "masksmith:device:cpu-test:waiting"


def test_searches_that_wait_get_the_device_for_as_long_as_the_benchmark_had_it(records, device, monkeypatch):
    now, held = [0.0], []
    monkeypatch.setattr(locks, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=nothing_for))
    records.redis.set(WAITING, "1")
    with device.exclusive(nothing):
        now[0] += 10.0

    def search_again():
        """A further search begins at each look of the benchmark, and time goes on."""
        with device.shared(give_up):
            now[0] += 0.5
            held.append(now[0])

    with device.exclusive(search_again) as intact:
        assert intact()
    assert held[-1] == 20.0


def nothing_for(seconds):
    pass


def test_a_benchmark_does_not_give_way_when_no_search_is_left(records, device, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(locks, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=nothing_for))
    with device.exclusive(nothing):
        now[0] += 200.0
    records.redis.set(WAITING, "1")

    def look():
        records.redis.delete(WAITING)
        now[0] += 0.5

    with device.exclusive(look) as intact:
        assert intact()
    assert now[0] < 203.0
