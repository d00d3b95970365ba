"""The journal in an output directory: the input and the options of a run, and its finished tensors and files."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from masksmith_client._errors import InputError
from masksmith_wire.json_text import parse_json
from masksmith_wire.output_names import BLOCKS_NAME, JOURNAL_NAME

from .partial_file import PART_SUFFIX, named_errors


class Journal:
    """An open journal. Each line is flushed when it is written, so it is kept if the process is killed.

    Attributes:
        lines: Lines of earlier runs, without the first line, which identifies the input and the options; empty after
            `restart`.
        has_finished_work: Whether the journal has a line after the first, that is, a finished tensor or file.
    """

    def __init__(self, file: BinaryIO, lines: list[Mapping[str, Any]]) -> None:
        self._file, self.lines, self.has_finished_work = file, lines, bool(lines)

    def write(self, line: Mapping[str, Any], *, durable: bool = False) -> None:
        """Append a line; a `durable` line is also kept if the machine loses power."""
        try:
            with named_errors(Path(self._file.name)):
                self._file.write(json.dumps(line).encode() + b"\n")
                self._file.flush()
                if durable:
                    os.fsync(self._file.fileno())
        except OSError:
            with suppress(OSError):  # `close` tries again to write the rest of the line, and may fail again.
                self._file.close()
            raise
        self.has_finished_work = True

    def restart(self, identity: Mapping[str, Any]) -> None:
        """Discard all lines, and write the first line of a new run."""
        self.lines = []
        with named_errors(Path(self._file.name)):
            self._file.truncate(0)
        self.write({"identity": identity}, durable=True)
        self.has_finished_work = False


@contextmanager
def open_journal(folder: Path, identity: Mapping[str, Any]) -> Iterator[Journal]:
    """Open or create the journal of an output directory and lock it against other processes.

    An earlier run is continued if its journal lists a finished tensor or file, or if its folder of finished blocks
    exists. Otherwise what it left is deleted and a new run begins; if that run fails before it has finished anything,
    its journal and partial files are deleted, too.

    Raises:
        InputError: If the run to continue has another input or other options; or if another process holds the lock, or
            removed the journal after it was opened here.
        OSError: If the journal cannot be read or written, or the file system has no locks; the error names the journal.
    """
    path = folder / JOURNAL_NAME
    with path.open("a+b") as file:
        with named_errors(path):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"another process is writing {folder}") from None
            if not _is_at(path, file):
                raise InputError(f"another process has just ended its work in {folder}; repeat the command")
            lines = _read_and_cut(file)
        journal = Journal(file, lines[1:])
        try:
            if lines and (journal.has_finished_work or (folder / BLOCKS_NAME).exists()):
                _check_identity(lines[0].get("identity"), identity, folder)
            else:
                _remove_partial_files(folder)
                shutil.rmtree(folder / BLOCKS_NAME, ignore_errors=True)
                journal.restart(identity)
            yield journal
        except BaseException:
            if not journal.has_finished_work and not (folder / BLOCKS_NAME).exists():
                _remove_partial_files(folder)
                path.unlink(missing_ok=True)
            raise


def _is_at(path: Path, file: BinaryIO) -> bool:
    """Whether an open file is still the one at a path, so that a lock on the file excludes all who open the path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _remove_partial_files(folder: Path) -> None:
    for path in folder.glob(".*" + PART_SUFFIX):
        path.unlink()


def _read_and_cut(file: BinaryIO) -> list[Mapping[str, Any]]:
    """Read the lines before the first that is incomplete or not JSON, and cut the file there.

    A process that was killed may have left an incomplete line at the end.
    """
    file.seek(0)
    lines: list[Mapping[str, Any]] = []
    end = 0
    for line in file:
        try:
            if not line.endswith(b"\n"):
                break
            lines.append(parse_json(line))
        except ValueError:
            break
        end += len(line)
    file.truncate(end)
    return lines


def _check_identity(recorded: Any, identity: Mapping[str, Any], folder: Path) -> None:
    if recorded == identity:
        return
    recorded = recorded if isinstance(recorded, Mapping) else {}
    changed = [name for name in identity if recorded.get(name) != identity[name]]
    raise InputError(
        f"{folder} is the unfinished output of another run: {', '.join(changed)} differ(s); repeat that command, or "
        f"remove the directory"
    )
