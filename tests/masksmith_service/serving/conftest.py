"""A real service of two processes, without workers, and somebody who speaks HTTP to it word by word."""

import socket

import pytest
from fleet import Fleet
from processes import children_of, poll, tails

LOGS = pytest.StashKey()


class Pair:
    """The front process and its bulk process."""

    def __init__(self, fleet):
        self.seat, self.url = fleet.services[0], fleet.url
        self.address = ("127.0.0.1", int(fleet.url.rpartition(":")[2]))

    @property
    def front(self):
        return self.seat.process.pid

    @property
    def bulk(self):
        (found,) = children_of(self.front)
        return found

    def await_bulk(self, number):
        """Wait until so many bulk processes have been ready."""
        poll(lambda: self.seat.bulks >= number)


class Speaker:
    """A connection, and what is said on it."""

    def __init__(self, address):
        self._socket = socket.create_connection(address, timeout=20)
        self._answers = self._socket.makefile("rb")

    def say(self, *words):
        self._socket.sendall(b"".join(words))

    def hear(self):
        """Give status, headers and body of the next answer; None where the connection is closed instead."""
        line = self._answers.readline()
        if not line:
            return None
        headers = {}
        while (field := self._answers.readline().rstrip()) != b"":
            name, _, value = field.partition(b": ")
            headers[name.lower().decode()] = value.decode()
        return int(line.split()[1]), headers, self._answers.read(int(headers.get("content-length", 0)))

    def close(self):
        self._answers.close()
        self._socket.close()


@pytest.fixture(scope="session")
def session_fleet(tmp_path_factory, request):
    with Fleet(tmp_path_factory.mktemp("serving"), workers=0, MASKSMITH_REQUEST_HEAD_S="1.5") as fleet:
        request.config.stash[LOGS] = fleet.logs
        yield fleet


@pytest.fixture
def pair(session_fleet):
    """Both processes, ready."""
    if not session_fleet.services[0].runs:
        session_fleet.services[0].start()
    session_fleet.await_all()
    return Pair(session_fleet)


@pytest.fixture
def speaker(pair):
    """Open connections, as many as wanted."""
    opened = []

    def speaker():
        opened.append(Speaker(pair.address))
        return opened[-1]

    yield speaker
    for one in opened:
        one.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed and LOGS in item.config.stash:
        report.sections += tails(item.config.stash[LOGS])
    return report
