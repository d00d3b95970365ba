"""Errors of the file system while a file is written name the file, whichever operation fails."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from masksmith_client._errors import InputError
from masksmith_client.checkpoints import journal, partial_file
from masksmith_client.checkpoints.partial_file import PartialFile
from masksmith_client.cli.app import explain
from masksmith_client.results.atomic_write import atomic_write
from masksmith_wire.output_names import JOURNAL_NAME


def fail(*_: Any) -> Any:
    """An error of the operating system on a descriptor, which has no name."""
    raise OSError(errno.EIO, os.strerror(errno.EIO))


class Failing:
    """A file of which each operation that is used fails, except those in `works`."""

    name, closed = "", False

    def __init__(self, *works: str) -> None:
        self._works = works

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return (lambda *_: None) if name in ("close", *self._works) else fail


@pytest.mark.parametrize(
    ("works", "use"),
    [
        ((), lambda part: part.resume(4, "")),
        (("seek",), lambda part: part.resume(4, "")),
        ((), lambda part: part.restart()),
        ((), lambda part: part.write(b"more")),
        ((), lambda part: part.read(0, 4)),
        (("flush",), lambda part: part.read(0, 4)),
        ((), lambda part: part.finish()),
        (("flush",), lambda part: part.finish()),
    ],
    ids=["seek", "resume", "truncate", "write", "flush", "read", "finish", "fsync"],
)
def test_every_operation_names_its_file(
    tmp_path: Path, works: tuple[str, ...], use: Callable[[PartialFile], object]
) -> None:
    target = tmp_path / "model.safetensors"
    with PartialFile(target) as part:
        part.write(b"data")
        part._file.close()
        part._file = Failing(*works)  # type: ignore[assignment]
        with pytest.raises(OSError, match="Input/output error") as caught:
            use(part)
    assert explain(caught.value) == (f"{target}: Input/output error", 1)


def test_a_directory_in_place_of_the_temporary_file_is_named(tmp_path: Path) -> None:
    (tmp_path / ".model.safetensors.part").mkdir()
    with pytest.raises(
        InputError, match=r"model\.safetensors is written to .*\.part first, which is a directory; remove"
    ):
        PartialFile(tmp_path / "model.safetensors")


def test_a_journal_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_read_and_cut", fail)
    with pytest.raises(OSError, match="Input/output error") as caught, journal.open_journal(tmp_path, {}):
        pass
    assert caught.value.filename == str(tmp_path / JOURNAL_NAME)


def test_a_file_system_without_locks_is_no_other_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(journal.fcntl, "flock", no_locks)
    with pytest.raises(OSError, match="No locks available") as caught, journal.open_journal(tmp_path, {}):
        pass
    assert caught.value.filename == str(tmp_path / JOURNAL_NAME)
    assert not isinstance(caught.value, InputError)


@pytest.mark.parametrize(
    ("name", "reason"), [("missing/masks.safetensors", "No such file or directory"), ("folder", "Is a directory")]
)
def test_an_error_of_a_temporary_file_names_the_target(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=reason) as caught, atomic_write(tmp_path / name):
        pass
    assert explain(caught.value) == (f"{tmp_path / name}: {reason}", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_range_is_read_in_as_many_reads_as_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_file, "MAX_READ_BYTES", 3)
    with PartialFile(tmp_path / "model.safetensors") as part:
        part.write(b"0123456789")
        assert part.read(1, 9) == b"12345678"
        assert part.read(8, 20) == b"89"


def test_a_new_file_has_usual_permissions_without_a_change_of_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All threads share the umask, so a change would be seen by others."""
    (tmp_path / "usual").write_bytes(b"")

    def refuse(_: int) -> int:
        raise AssertionError("the umask is changed")

    monkeypatch.setattr(os, "umask", refuse)
    with atomic_write(tmp_path / "new") as file:
        file.write(b"new")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path, mode: int) -> None:
    target = tmp_path / "masks.safetensors"
    target.write_bytes(b"old")
    target.chmod(mode)
    (tmp_path / "link").symlink_to(target)
    with atomic_write(tmp_path / "link") as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600  # only the owner reads it until it is complete
        file.write(b"new")
    assert (target.read_bytes(), stat.S_IMODE(target.stat().st_mode)) == (b"new", mode)


def test_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe is a device or a pipe, not a file"), atomic_write(tmp_path / "pipe"):
        raise AssertionError("it is opened")
    assert [stat.S_ISFIFO(path.lstat().st_mode) for path in tmp_path.iterdir()] == [True]


def test_an_error_is_not_hidden_by_a_temporary_file_that_is_gone(tmp_path: Path) -> None:
    def interrupt() -> None:
        with atomic_write(tmp_path / "masks.safetensors"):
            next(tmp_path.iterdir()).unlink()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
