"""Real services without workers, of one process and of two, and clients that write HTTP word by word."""

import contextlib
import json
import socket
import time

import pytest
from support.fleet import Fleet
from support.processes import tails

LOGS = pytest.StashKey()
HEAD_S = 3.0


class Speaker:
    """A connection, and what is sent and received on it."""

    def __init__(self, address):
        self._socket = socket.create_connection(address, timeout=120)
        self._answers = self._socket.makefile("rb")

    def say(self, *words):
        self._socket.sendall(b"".join(words))

    def flood(self, block, most):
        """Send a block again and again; gives how many bytes were taken before the connection was closed."""
        sent = 0
        with contextlib.suppress(OSError):
            while sent < most:
                sent += self._socket.send(block)
        return sent

    def hear(self):
        """Return status, headers and body of the next answer; None where the connection is closed instead."""
        if (answer := self.hear_head()) is None:
            return None
        status, headers, _ = answer
        return status, headers, self._answers.read(int(headers.get("content-length", 0)))

    def hear_head(self):
        """Return status and headers of the next answer, which has no body."""
        line = self._answers.readline()
        if not line:
            return None
        headers = {}
        while (field := self._answers.readline().rstrip()) != b"":
            name, _, value = field.partition(b": ")
            headers[name.lower().decode()] = value.decode()
        return int(line.split()[1]), headers, b""

    def is_closed(self):
        """Wait until the service closes the connection; whatever else it sends is an error."""
        try:
            return self._answers.read(1) == b""
        except ConnectionResetError:
            return True

    def check_refused(self, status, code, word):
        """The next answer is a problem document, the last of its connection."""
        received, headers, body = self.hear()
        problem = json.loads(body)
        assert (received, problem["status"], problem["code"]) == (status, status, code)
        assert headers["content-type"] == "application/problem+json"
        assert headers["connection"] == "close"
        assert word in problem["detail"]
        assert self.is_closed()

    def close(self):
        self._answers.close()
        self._socket.close()


@pytest.fixture(scope="package")
def fleet_of(tmp_path_factory, request):
    """Return a service of so many processes, running, where a head may take so many seconds."""
    with contextlib.ExitStack() as stack:
        fleets = {}

        def fleet_of(processes, head_s=120):
            key = processes, head_s
            if key not in fleets:
                settings = {"MASKSMITH_REQUEST_HEAD_S": str(head_s), "MASKSMITH_PROCESSES": str(processes)}
                fleet = Fleet(tmp_path_factory.mktemp("server"), workers=0, **settings)
                fleets[key] = stack.enter_context(fleet)
                request.config.stash.setdefault(LOGS, []).extend(fleet.logs)
            if not fleets[key].services[0].runs:
                fleets[key].services[0].start()
                fleets[key].await_all()
            return fleets[key]

        yield fleet_of


@pytest.fixture
def fleet(fleet_of):
    return fleet_of(1)


@contextlib.contextmanager
def speaking(fleet):
    opened, address = [], ("127.0.0.1", int(fleet.url.rpartition(":")[2]))
    log = fleet.services[0].log
    before = len(log.read_text())

    def speaker():
        opened.append(Speaker(address))
        return opened[-1]

    yield speaker
    for one in opened:
        one.close()
    time.sleep(0.05)
    assert "Traceback" not in log.read_text()[before:]


@pytest.fixture
def speaker(fleet):
    """Open connections, as many as wanted; nothing said on them may leave a traceback in the log."""
    with speaking(fleet) as speaker:
        yield speaker


@pytest.fixture
def hurried_speaker(fleet_of):
    """As `speaker`, to a service where the head of a request has to arrive within `HEAD_S`."""
    # Only for tests of slow heads: on a busy machine any head may take so long.
    with speaking(fleet_of(1, HEAD_S)) as speaker:
        yield speaker


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed and LOGS in item.config.stash:
        report.sections += tails(item.config.stash[LOGS])
    return report
