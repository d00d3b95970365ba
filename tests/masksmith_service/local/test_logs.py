"""Logs of local processes do not grow without bound, and lose nothing that was written before or after a rotation."""

import dataclasses
import os
import signal
import sys
import time

import pytest

from masksmith_service.local import logs, processes
from masksmith_service.local.processes import Child, ProcessSpec
from masksmith_service.local.supervisor import ProcessFailedError, Supervisor

WRITER = """
import sys, time
for number in range(100_000):
    print(f"line {number:06d}", flush=True)
    time.sleep(0.0005)
"""


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "MAX_LOG_BYTES", 1000)
    return tmp_path / "service.log"


@pytest.fixture
def spec(path):
    return ProcessSpec("service", [sys.executable, "-c", WRITER], dict(os.environ), path, 1.0, signal.SIGKILL)


def test_an_open_log_is_rotated_and_nothing_is_lost(path):
    with path.open("ab", buffering=0) as log:
        for number in range(4):
            log.write(b"%d" % number * 600)
            assert logs.rotate_open(path) == (number in (1, 3))
    assert path.read_bytes() == b""
    assert path.with_suffix(".log.1").read_bytes() == b"2" * 600 + b"3" * 600
    assert path.with_suffix(".log.1").stat().st_mode & 0o777 == 0o600
    assert {file.name for file in path.parent.iterdir()} == {"service.log", "service.log.1"}


class FullDisk:
    """A file whose bytes are written to a full disk; if not `at_once`, only a flush reports it, as for a last piece."""

    def __init__(self, file, *, at_once):
        self._file, self._at_once, self._pieces = file, at_once, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, data):
        self._pieces += 1
        if self._at_once:
            raise OSError(28, "No space left on device")

    def flush(self):
        if self._pieces > 1:
            raise OSError(28, "No space left on device")


@pytest.mark.parametrize("at_once", [True, False])
def test_a_rotation_on_a_full_disk_changes_nothing(path, monkeypatch, at_once):
    """The second piece is appended to the log while the first one is copied."""
    create, copy = logs._create_private, logs.shutil.copyfileobj

    def copy_and_append(source, target, length):
        copy(source, target, length)
        with path.open("ab") as log:
            log.write(b"more")

    monkeypatch.setattr(logs, "_create_private", lambda part: FullDisk(create(part), at_once=at_once))
    monkeypatch.setattr(logs.shutil, "copyfileobj", copy_and_append)
    path.write_bytes(b"x" * 2000)
    path.with_suffix(".log.1").write_bytes(b"earlier")
    with pytest.raises(OSError, match="No space left"):
        logs.rotate_open(path)
    assert path.read_bytes().startswith(b"x" * 2000)
    assert {file.name for file in path.parent.iterdir()} == {"service.log", "service.log.1"}
    assert path.with_suffix(".log.1").read_bytes() == b"earlier"


def test_the_log_of_a_running_process_stays_small(path, spec):
    supervisor = Supervisor(print)
    with supervisor.handling_signals():
        supervisor.start(spec)
        try:
            deadline = time.monotonic() + 60
            while not path.with_suffix(".log.1").exists() or path.stat().st_size == 0:
                assert time.monotonic() < deadline
                supervisor.rotate_logs()
                time.sleep(0.02)
        finally:
            supervisor.stop()
    lines = path.read_text().splitlines()
    assert lines[-1].startswith("line ")
    assert "\0" not in path.read_text()


def test_a_rotation_that_fails_stops_nothing(path, spec, monkeypatch):
    path.write_bytes(b"x" * 2000)
    attempts = []

    def fail(log):
        attempts.append(log)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(processes, "rotate_open", fail)
    child = Child(spec)
    try:
        child.rotate_log()
        child.rotate_log()
    finally:
        child.terminate()
        child.wait_or_kill(time.monotonic() + 5)
    assert attempts == [path]


def test_a_log_that_was_deleted_does_not_hide_why_a_process_failed(path, spec):
    supervisor = Supervisor(print)
    supervisor.start(dataclasses.replace(spec, command=[sys.executable, "-c", "input(); raise SystemExit(3)"]))
    path.unlink()
    with pytest.raises(ProcessFailedError, match=r"(?s)exited with code .*cannot be read: No such file"):
        check_until_failure(supervisor)
    supervisor.stop()


def check_until_failure(supervisor):
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        supervisor.check()
