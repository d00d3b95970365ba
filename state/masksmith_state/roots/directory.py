"""A root that is a directory. No file outside it is opened, not even by a link that is made while a file is opened."""

from __future__ import annotations

import errno
import os
import re
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from masksmith_state.errors import ChangedSourceError, InvalidLocationError, RootUnavailableError

from .location import is_inside
from .root import FileState, Root

PART_SUFFIX = ".part"
"""End of the name of a file that is being written."""
_PART_NAME = re.compile(rf"\.[0-9a-f]{{32}}{re.escape(PART_SUFFIX)}")
IGNORED_NAMES = frozenset({"lost+found"})
"""Names of directories that file systems make, that only the superuser may list, and that contain no models."""
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NOT_A_DIRECTORY = "its path contains a link, or a file in place of a directory"
_A_DIRECTORY = "it is a directory in place of a file"
_TOO_LONG = "a name in its path is longer than the file system allows"
_OUTSIDE = "a link in its path leads outside the root"


def is_part_name(path: str) -> bool:
    """Whether a path is that of a part file: one that is being written, or was left when its writer was killed."""
    return _PART_NAME.fullmatch(path.rpartition("/")[2]) is not None


@dataclass(frozen=True)
class DirectoryRoot(Root):
    """Files of a directory. The version of a file is its size, and the time of its last change in nanoseconds."""

    def stat(self, path: str) -> FileState:
        """See `Root.stat`."""
        with self._opened(path) as file:
            return _state(file)

    def read(self, path: str, start: int, stop: int, version: str) -> bytes:
        """See `Root.read`; the version is checked before and after the bytes are read."""
        try:
            with self._opened(path) as file:
                self._check_version(path, file, version)
                data = _pread(file, start, stop)
                self._check_version(path, file, version)
        except FileNotFoundError:
            raise self.missing_file_error(path) from None
        if len(data) < stop - start:
            raise ChangedSourceError(self.location(path), f"it ends before byte {stop}")
        return data

    def list(self, path: str) -> dict[str, int]:
        """See `Root.list`; links that lead nowhere, and what is not a regular file, are left out.

        A link to a file outside the root is listed, though `stat` and `read` refuse it, so that no file of a
        model is left out silently. Links to directories are not followed. A directory that cannot be listed is an
        error.
        """
        with self._as_domain_errors(path):
            # Raises RootUnavailableError if the root itself does not exist.
            self._resolved("")
            try:
                base = self._resolved(path)
            except FileNotFoundError:
                return {}
            if not base.is_dir():
                return {}
            return self._sizes(path, base)

    def write(self, path: str, pieces: Iterable[bytes | memoryview]) -> None:
        """See `Root.write`."""
        with self._as_domain_errors(path), self._folder_of(path) as (folder, name):
            with self._part(folder, pieces) as part:
                os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)

    def create(self, path: str, data: bytes) -> bool:
        """See `Root.create`."""
        with self._as_domain_errors(path), self._folder_of(path) as (folder, name):
            try:
                with self._part(folder, [data]) as part:
                    # Unlike a rename, a hard link does not replace an existing file.
                    os.link(part, name, src_dir_fd=folder, dst_dir_fd=folder)
            except FileExistsError:
                if _is_directory(name, folder):
                    raise
                return False
            os.fsync(folder)
            return True

    def check_writable(self, path: str) -> None:
        """See `Root.check_writable`."""
        with (
            self._as_domain_errors(path),
            suppress(FileNotFoundError),
            self._folder_of(path, make=False) as (folder, name),
        ):
            if _is_directory(name, folder):
                raise InvalidLocationError(self.location(path), _A_DIRECTORY)

    def delete(self, path: str) -> None:
        """See `Root.delete`."""
        with (
            self._as_domain_errors(path),
            suppress(FileNotFoundError),
            self._folder_of(path, make=False) as (folder, name),
        ):
            os.unlink(name, dir_fd=folder)

    def _sizes(self, path: str, base: Path) -> dict[str, int]:
        """Sizes of the files below a directory, by path relative to it."""
        sizes: dict[str, int] = {}
        inner_roots = self._inner_roots()
        for folder, folders, names in os.walk(base, onerror=partial(self._raise_unless_deleted, path, base)):
            folders[:] = sorted(
                name for name in folders if name not in IGNORED_NAMES and Path(folder, name) not in inner_roots
            )
            for name in sorted(names):
                target = Path(folder, name)
                with suppress(FileNotFoundError):
                    if target.is_file():
                        sizes[target.relative_to(base).as_posix()] = target.stat().st_size
            self.check_file_count(path, len(sizes))
        return sizes

    def _raise_unless_deleted(self, path: str, base: Path, error: OSError) -> None:
        """Raise `RootUnavailableError` if a directory below `base` cannot be listed; `path` is the path of `base`."""
        if not isinstance(error, FileNotFoundError):
            folder = Path(path, Path(error.filename).relative_to(base)).as_posix()
            raise RootUnavailableError(self.location("" if folder == "." else folder), str(error.strerror))

    def _resolved(self, path: str) -> Path:
        """Follow all links of a path, and check that it ends inside the root."""
        try:
            base = Path(self.url).resolve(strict=True)
        except OSError as error:
            raise RootUnavailableError(self.url, str(error.strerror)) from None
        try:
            target = (base / path).resolve(strict=True)
        except (RuntimeError, OSError) as error:
            if isinstance(error, RuntimeError) or error.errno == errno.ELOOP:
                raise InvalidLocationError(self.location(path), "its links lead in a circle") from None
            if isinstance(error, NotADirectoryError) or error.errno == errno.ENAMETOOLONG:
                raise FileNotFoundError(self.location(path)) from None
            raise
        if not is_inside(str(target), str(base)):
            raise InvalidLocationError(self.location(path), _OUTSIDE)
        self._check_not_in_inner_root(path, target)
        return target

    def _inner_roots(self) -> set[Path]:
        """Return the other roots that are inside this one, all links resolved; they need not exist."""
        base = Path(self.url).resolve()
        return {other for url in self.others if base in (other := Path(url).resolve()).parents}

    def _check_not_in_inner_root(self, path: str, target: Path) -> None:
        """Raise `InvalidLocationError` if `target`, without links, is in an inner root; `path` is for the message."""
        if not self._inner_roots().isdisjoint((target, *target.parents)):
            raise self.inner_root_error(path)

    @contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        """Open a file for reading, without following a link that was made after the path was resolved."""
        with self._as_domain_errors(path):
            base = Path(self.url).resolve()
            names = self._resolved(path).relative_to(base).parts
            if not names:
                raise InvalidLocationError(self.location(path), "it is the root itself, and not a file")
            folder = _walk(os.open(base, _FOLDER_FLAGS), names[:-1], make=False)
            try:
                file = os.open(names[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            finally:
                os.close(folder)
            try:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    raise InvalidLocationError(self.location(path), "it is not a file")
                yield file
            finally:
                os.close(file)

    @contextmanager
    def _folder_of(self, path: str, *, make: bool = True) -> Iterator[tuple[int, str]]:
        """Open the directory of a path without following links; yields its descriptor, and the name of the file.

        If `make`, directories that do not exist are made.
        """
        base = self._resolved("")
        self._check_not_in_inner_root(path, base / path)
        *folders, name = path.split("/")
        folder = _walk(os.open(base, _FOLDER_FLAGS), folders, make=make)
        try:
            yield folder, name
        finally:
            os.close(folder)

    @contextmanager
    def _part(self, folder: int, pieces: Iterable[bytes | memoryview]) -> Iterator[str]:
        """Write a new file and yield its name; it is deleted afterwards, unless it was renamed."""
        part = f".{uuid.uuid4().hex}{PART_SUFFIX}"  # Without the name of the file, which may have any length.
        try:
            self._write_part(folder, part, pieces)
            yield part
        finally:
            with suppress(FileNotFoundError):
                os.unlink(part, dir_fd=folder)

    def _write_part(self, folder: int, part: str, pieces: Iterable[bytes | memoryview]) -> None:
        """Write a new file; group and others get the read and write permissions that they have on its directory."""
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder), "wb") as file:
            os.fchmod(file.fileno(), 0o600 | os.fstat(folder).st_mode & 0o066)
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())

    def _check_version(self, path: str, file: int, version: str) -> None:
        if _state(file).version != version:
            raise ChangedSourceError(self.location(path), "size or time of change are not the same")

    @contextmanager
    def _as_domain_errors(self, path: str) -> Iterator[None]:
        """Convert errors of the operating system to domain errors, except FileNotFoundError."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise InvalidLocationError(self.location(path), _NOT_A_DIRECTORY) from None
            if error.errno == errno.ENAMETOOLONG:
                raise InvalidLocationError(self.location(path), _TOO_LONG) from None
            if error.errno in (errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY):
                raise InvalidLocationError(self.location(path), _A_DIRECTORY) from None
            raise RootUnavailableError(self.location(path), str(error.strerror)) from None


def _walk(folder: int, names: Iterable[str], *, make: bool) -> int:
    """Open the subdirectory at `names` below `folder`, one name after the other, without following links.

    `folder` is closed; without names, it is returned, still open.
    A directory that is made gets the group and world permissions of its parent directory; then the parent directory is
    flushed to the disk, as `write` does for a file.
    """
    for name in names:
        try:
            is_new = make and _make(name, folder)
            child = os.open(name, _FOLDER_FLAGS, dir_fd=folder)
            try:
                if is_new:
                    os.fchmod(child, 0o700 | os.fstat(folder).st_mode & 0o077)
                    os.fsync(folder)
            except OSError:
                os.close(child)
                raise
        finally:
            os.close(folder)
        folder = child
    return folder


def _make(name: str, folder: int) -> bool:
    """Make a directory; returns False if its name exists already, even as a file or a link."""
    try:
        os.mkdir(name, 0o700, dir_fd=folder)
    except FileExistsError:
        return False
    return True


def _is_directory(name: str, folder: int) -> bool:
    with suppress(FileNotFoundError):
        return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    return False


def _state(file: int) -> FileState:
    status = os.fstat(file)
    return FileState(status.st_size, f"{status.st_size}-{status.st_mtime_ns}")


def _pread(file: int, start: int, stop: int) -> bytes:
    """Read the bytes from `start` to `stop` (exclusive), or to the end of the file."""
    pieces: list[bytes] = []
    while start < stop and (piece := os.pread(file, min(stop - start, 2**30), start)):
        pieces.append(piece)
        start += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
