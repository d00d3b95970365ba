"""Processes that start large work at the same moment do not both take the memory."""

import os
import subprocess
import sys
import threading

import pytest

from masksmith_worker.stages import memory
from masksmith_worker.stages.reservations import Reservations

HOLDER = """
import sys
from pathlib import Path
from masksmith_worker.stages.reservations import Reservations

with Reservations(Path(sys.argv[1])).try_to_reserve(1000 * 2**20, lambda: 1000 * 2**20, lambda: None) as available:
    assert available is None
    print("held", flush=True)
    for line in sys.stdin:
        touched = b"1" * int(line)
        print("allocated", flush=True)
"""
MIB = 2**20


class NotYetError(Exception):
    """Raised by a wait that a test ends."""


def give_up():
    raise NotYetError


@pytest.fixture
def reservations(tmp_path):
    return Reservations(tmp_path)


@pytest.fixture
def holder(tmp_path):
    """Another process that has reserved 1000 MiB."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_what_another_process_has_reserved_is_not_available(reservations, holder):
    with reservations.try_to_reserve(500 * MIB, lambda: 1600 * MIB, give_up) as available:
        assert available is None
    with pytest.raises(NotYetError), reservations.try_to_reserve(500 * MIB, lambda: 1400 * MIB, give_up):
        pass


def test_what_it_has_allocated_already_is_not_counted_twice(reservations, holder):
    holder.stdin.write(f"{400 * MIB}\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "allocated\n"
    # 600 MiB of its reservation are not allocated; what is available has become less by the rest.
    with reservations.try_to_reserve(500 * MIB, lambda: 1200 * MIB, give_up) as available:
        assert available is None


def test_processes_with_the_same_id_keep_their_own_reservations(reservations, holder, monkeypatch):
    """Two containers that share the folder: in each, the worker may be process 1."""
    monkeypatch.setattr(os, "getpid", lambda: holder.pid)
    # Ends a wait for the lock of the holder's file.
    watchdog = threading.Timer(60, holder.kill)
    watchdog.start()
    with reservations.try_to_reserve(500 * MIB, lambda: 1600 * MIB, give_up) as available:
        assert available is None
        assert len(list(reservations.folder.glob("*.reservation"))) == 2
    watchdog.cancel()
    assert len(list(reservations.folder.glob("*.reservation"))) == 1
    with pytest.raises(NotYetError), reservations.try_to_reserve(500 * MIB, lambda: 1400 * MIB, give_up):
        pass


def test_of_a_reservation_in_another_container_all_bytes_are_counted(reservations, holder, monkeypatch):
    holder.stdin.write(f"{400 * MIB}\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "allocated\n"
    monkeypatch.setattr("masksmith_worker.stages.reservations.pid_namespace", lambda: 1)
    with pytest.raises(NotYetError), reservations.try_to_reserve(500 * MIB, lambda: 1400 * MIB, give_up):
        pass


@pytest.mark.parametrize("end", ["kill", "finish"])
def test_one_that_waits_goes_on_when_the_other_has_ended(reservations, holder, end):
    waits = []

    def wait():
        waits.append(1)
        if end == "kill":
            holder.kill()
        else:
            holder.stdin.close()
        holder.wait()

    with reservations.try_to_reserve(500 * MIB, lambda: 1000 * MIB, wait) as available:
        assert available is None
    assert waits == [1]
    assert list(reservations.folder.glob("*.reservation")) == []


def test_without_others_what_does_not_fit_is_said_at_once(reservations):
    with reservations.try_to_reserve(1001, lambda: 1000, give_up) as available:
        assert available == 1000
    assert list(reservations.folder.glob("*.reservation")) == []


def test_a_reservation_ends_with_its_block(reservations):
    def fail_inside():
        with reservations.try_to_reserve(10, lambda: 1000, give_up):
            assert len(list(reservations.folder.glob("*.reservation"))) == 1
            raise NotYetError

    with pytest.raises(NotYetError):
        fail_inside()
    assert list(reservations.folder.glob("*.reservation")) == []


def test_a_link_and_a_folder_of_another_user_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    first = Reservations.of_user()
    assert first.folder.stat().st_mode & 0o777 == 0o700
    first.folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    first.folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="is a symbolic link; remove it"):
        Reservations.of_user()
    first.folder.unlink()
    Reservations.of_user()
    stat = os.stat_result((0o40700, 0, 0, 2, os.getuid() + 1, 0, 0, 0, 0, 0))
    monkeypatch.setattr(type(first.folder), "lstat", lambda path: stat)
    with pytest.raises(PermissionError, match="belongs to another user"):
        Reservations.of_user()


def test_a_wait_stops_with_the_work(monkeypatch, tmp_path, holder):
    monkeypatch.setattr(memory.Reservations, "of_user", lambda: Reservations(tmp_path))
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000 * MIB)

    class Gram:
        shape = (8192, 8192)

    with pytest.raises(NotYetError), memory.reserved_memory(Gram, "reconstruct", give_up):
        pass


def test_a_folder_that_cannot_be_used_is_named_with_what_to_do(monkeypatch, tmp_path):
    """A full disk, or a folder of another user, is no fault of this program."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000 * MIB)
    Reservations.of_user().folder.rmdir()
    (tmp_path / f"masksmith-memory-{os.getuid()}").write_text("no folder")

    class Gram:
        shape = (8192, 8192)

    reason = r"cannot be reserved in the worker's temporary folder: .*; make room there, or set TMPDIR"
    with pytest.raises(memory.InsufficientMemoryError, match=reason), memory.reserved_memory(Gram, "admm", give_up):
        pass
