"""The broker's clock jumps by two hours, forwards and backwards, while a worker is killed."""

import itertools
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.fleet import Fleet, bits, seconds_until, submit
from support.processes import poll

HOUR_S = 3600
DEFAULTS = {"MASKSMITH_LEASE_S": "15", "MASKSMITH_SWEEP_S": "3"}


class Clock:
    """The clock that a process reads: the system clock plus an offset, set through libfaketime."""

    def __init__(self, path):
        self._path = path
        self.shift(0)
        library = next(Path(find_spec("libfaketime").origin).parent.rglob("libfaketime.so.1"))
        self.variables = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(path),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def shift(self, offset_s):
        """Set the offset from the system clock."""
        new_file = self._path.with_suffix(".new")
        new_file.write_text(f"{offset_s:+d}\n")
        new_file.rename(self._path)


@pytest.fixture(scope="module")
def clock(tmp_path_factory):
    return Clock(tmp_path_factory.mktemp("clock") / "offset")


@pytest.fixture(scope="module")
def default_fleet(tmp_path_factory, clock):
    """Two workers with default leases and sweeps. All timestamps come from the broker, which has its own clock."""
    folder = tmp_path_factory.mktemp("defaults")
    with Fleet(folder, workers=2, broker_given=clock.variables, **DEFAULTS) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def layers(weights):
    """Enough layers to keep two workers busy while a clock jumps."""
    return dict(itertools.islice(weights.items(), 40))


@pytest.fixture(scope="module")
def expected(layers, undisturbed):
    return {name: undisturbed[name] for name in layers}


def kill_a_worker(fleet, job):
    """Return the seconds until all shards that the killed worker may have held are done."""
    held = poll(lambda: (found := fleet.held(job)) and len(found) == len(fleet.workers) and found)
    fleet.workers[0].kill()
    seconds = seconds_until(lambda: not held & fleet.pending(job))
    fleet.workers[0].start()
    return seconds


@pytest.mark.slow
def test_the_shard_of_a_killed_worker_is_done_by_another(default_fleet, layers, expected, table):
    with default_fleet.client() as client:
        job = submit(client, layers)
        default_fleet.await_done(job.id, 2)
        seconds = kill_a_worker(default_fleet, job.id)
        masks = bits(job)
    table["SIGKILL of worker, leases of 15 s"].add(seconds, lost=int(masks != expected))
    assert masks == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "offset_s",
    [pytest.param(-2 * HOUR_S, id="backwards"), pytest.param(2 * HOUR_S, id="forwards")],
)
def test_a_clock_that_jumps_while_a_worker_dies(default_fleet, clock, layers, expected, table, offset_s):
    default_fleet.await_all()
    default_fleet.forget_results()
    with default_fleet.client() as client:
        job = submit(client, layers)
        default_fleet.await_done(job.id, 2)
        clock.shift(offset_s)
        seconds = kill_a_worker(default_fleet, job.id)
        queued = default_fleet.redis.llen("masksmith.cpu")
        masks = bits(job)
        clock.shift(0)
    word = "forwards" if offset_s > 0 else "backwards"
    table[f"the clock jumps two hours {word}, SIGKILL of worker"].add(seconds, lost=int(masks != expected))
    assert masks == expected
    assert queued <= job.document.progress.total
