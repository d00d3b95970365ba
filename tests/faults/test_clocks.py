"""The broker's time of day jumps by hours, both ways, and a worker dies right then."""

import itertools
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.fleet import Fleet, bits, seconds_until, submit
from support.processes import poll

HOUR_S = 3600
DEFAULTS = {"MASKSMITH_LEASE_S": "15", "MASKSMITH_SWEEP_S": "3"}


class Clock:
    """What a process takes for the time of day: ours plus an offset that tests change."""

    def __init__(self, path):
        self._path = path
        self.shift(0)
        library = next(Path(find_spec("libfaketime").origin).parent.rglob("libfaketime.so.1"))
        self.given = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(path),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def shift(self, offset_s):
        """Set it, in seconds from ours."""
        fresh = self._path.with_suffix(".new")
        fresh.write_text(f"{offset_s:+d}\n")
        fresh.rename(self._path)


@pytest.fixture(scope="module")
def clock(tmp_path_factory):
    return Clock(tmp_path_factory.mktemp("clock") / "offset")


@pytest.fixture(scope="module")
def lone(tmp_path_factory, clock):
    """Two workers with the leases and sweeps of an installation that nobody tuned; the broker, whose clock alone
    counts, has one of its own."""
    folder = tmp_path_factory.mktemp("defaults")
    with Fleet(folder, workers=2, broker_given=clock.given, **DEFAULTS) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def some(weights):
    """As many layers as keep two workers busy while a clock jumps."""
    return dict(itertools.islice(weights.items(), 40))


@pytest.fixture(scope="module")
def expected(some, undisturbed):
    return {name: undisturbed[name] for name in some}


def kill_a_worker(fleet, job):
    """Gives the seconds until what the killed worker may have held is done."""
    held = poll(lambda: (found := fleet.held(job)) and len(found) == len(fleet.workers) and found)
    fleet.workers[0].kill()
    seconds = seconds_until(lambda: not held & fleet.pending(job), 60)
    fleet.workers[0].start()
    return seconds


@pytest.mark.slow
def test_the_shard_of_a_killed_worker_is_done_by_another(lone, some, expected, table):
    with lone.client() as client:
        job = submit(client, some)
        lone.await_done(job.id, 2)
        seconds = kill_a_worker(lone, job.id)
        found = bits(job)
    table["SIGKILL of worker, leases of 15 s"].add(seconds, lost=int(found != expected))
    assert found == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "offset_s",
    [pytest.param(-2 * HOUR_S, id="backwards"), pytest.param(2 * HOUR_S, id="forwards")],
)
def test_a_clock_that_jumps_while_a_worker_dies(lone, clock, some, expected, table, offset_s):
    lone.await_all()
    lone.forget_results()
    with lone.client() as client:
        job = submit(client, some)
        lone.await_done(job.id, 2)
        clock.shift(offset_s)
        seconds = kill_a_worker(lone, job.id)
        queued = lone.redis.llen("masksmith.cpu")
        found = bits(job)
        clock.shift(0)
    word = "forwards" if offset_s > 0 else "backwards"
    table[f"the clock jumps two hours {word}, SIGKILL of worker"].add(seconds, lost=int(found != expected))
    assert found == expected
    assert queued <= job.document.progress.total
