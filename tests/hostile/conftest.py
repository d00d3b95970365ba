"""A real service process without workers, which is looked after: nothing that is sent to it may harm it."""

import httpx2
import numpy as np
import pytest
import safetensors.numpy
from support.fleet import Fleet
from support.processes import memory_mib, poll, tails

GOOD = safetensors.numpy.save({"w": np.arange(64, dtype=np.float32).reshape(8, 8)})
LONE = pytest.StashKey()


class Target:
    """The service under attack."""

    def __init__(self, fleet):
        self.fleet, self.url = fleet, fleet.url
        self.address = ("127.0.0.1", int(self.url.rpartition(":")[2]))
        self.http = httpx2.Client(base_url=self.url, timeout=120)

    @property
    def resident_mib(self):
        return memory_mib(self.fleet.services[0].process.pid, "VmRSS")

    def check_answers(self):
        """A correct answer to an honest request."""
        answer = self.http.post("/v1/masks?pattern=2:4", content=GOOD)
        assert answer.status_code == 202, answer.text
        assert self.http.delete(f"/v1/jobs/{answer.json()['id']}").status_code == 204

    def leftovers(self):
        return [*self.fleet.store.rglob("*#*"), *(self.fleet.store / "incoming").glob("*")]

    def await_no_leftovers(self):
        poll(lambda: not self.leftovers())

    def check_sound(self):
        """Honest requests are served, nothing is half-written, and nothing unexpected was logged."""
        self.check_answers()
        assert not self.leftovers()
        assert "Traceback" not in self.fleet.services[0].log.read_text()


@pytest.fixture(scope="package")
def shared_target(tmp_path_factory, request):
    with Fleet(tmp_path_factory.mktemp("hostile"), workers=0) as fleet:
        request.config.stash[LONE] = fleet
        target = Target(fleet)
        yield target
        target.http.close()


@pytest.fixture
def target(shared_target):
    """The service; afterwards it must be as sound as before."""
    shared_target.check_sound()
    yield shared_target
    shared_target.check_sound()
    assert shared_target.resident_mib < 512


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed and LONE in item.config.stash:
        report.sections += tails(item.config.stash[LONE].logs)
    return report
