"""One fleet for the suite, and the table of what it survived."""

import statistics
from collections import defaultdict
from itertools import islice
from pathlib import Path

import pytest
from support.axes import is_long_run
from support.fleet import TENSORS, Fleet, bits, forty, submit
from support.processes import tails

TABLE = pytest.StashKey()
FLEET = pytest.StashKey()


def columns():
    """Width of the layers; half as much in every run as in long ones."""
    return 512 if is_long_run() else 256


def layers():
    """Number of the layers."""
    return TENSORS if is_long_run() else 16


class Row:
    """What became of one fault, over all its times."""

    def __init__(self):
        self.times = self.lost = 0
        self.seconds = []

    def add(self, seconds=None, lost=0):
        self.times += 1
        self.lost += lost
        if seconds is not None:
            self.seconds.append(seconds)

    @property
    def recovery(self):
        if not self.seconds:
            return "-"
        return f"{statistics.median(self.seconds):.1f} (worst {max(self.seconds):.1f})"


@pytest.fixture(scope="session")
def table(request):
    """Rows of the table at the end, by fault."""
    return request.config.stash.setdefault(TABLE, defaultdict(Row))


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash.get(TABLE, {})
    if not rows:
        return
    width = max(map(len, rows))
    terminalreporter.section("faults")
    terminalreporter.line(f"{'fault':{width}}  times  lost  seconds to recover")
    for fault, row in rows.items():
        terminalreporter.line(f"{fault:{width}}  {row.times:5}  {row.lost:4}  {row.recovery}")


@pytest.fixture(scope="package")
def shared_fleet(tmp_path_factory, request):
    given = {
        "PYTHONPATH": str(Path(__file__).with_name("injection")),
        "MASKSMITH_SHARD_BYTES": str(128 * columns() * 4),
    }
    with Fleet(tmp_path_factory.mktemp("fleet"), services=2, workers=3, **given) as fleet:
        request.config.stash[FLEET] = fleet
        yield fleet


@pytest.fixture
def fleet(shared_fleet):
    """Two services and three workers on one broker, all there."""
    for seat in [*shared_fleet.services, *shared_fleet.workers]:
        if not seat.runs:
            seat.start()
    shared_fleet.await_all()
    shared_fleet.forget_results()
    return shared_fleet


@pytest.fixture(scope="session")
def weights():
    """Layers of two shards each."""
    return dict(islice(forty(seed=7, columns=columns()).items(), layers()))


@pytest.fixture(scope="package")
def undisturbed(shared_fleet, weights):
    """The masks of a run in which nothing happens."""
    with shared_fleet.client() as client:
        return bits(submit(client, weights))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        fleet = next((item.funcargs[name] for name in ("lone", "fleet") if name in item.funcargs), None)
        fleet = fleet or item.config.stash.get(FLEET, None)
        report.sections += tails(fleet.logs) if fleet is not None else []
    return report
