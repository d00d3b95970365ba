"""The interface of a root, which is a directory or a prefix of a bucket."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from masksmith_state.errors import ChangedSourceError, InvalidLocationError

MAX_LISTED_FILES = 10_000
"""Maximum number of files below a directory that is listed."""


class FileState(NamedTuple):
    """Size and version of a file.

    The version is a text that changes when the file is written: in a bucket the ETag; in a directory, and in a bucket
    without ETags, size and time of change.
    """

    size: int
    version: str


@dataclass(frozen=True)
class Root(ABC):
    """A directory, or a prefix of a bucket; arguments `path` are relative to it, with `/` between names.

    Files of a root inside this one are not accessible through this one: they are not listed, read, written or deleted,
    because the inner root may be for other keys.

    All methods that access files raise `RootUnavailableError` if the root does not answer, or denies access.

    Attributes:
        url: An absolute path, or an `s3://` URL; without a slash at the end.
        others: Locations of the other roots of the same kind, some of which may be inside this one.
    """

    url: str
    others: tuple[str, ...] = ()

    def location(self, path: str) -> str:
        """Location of a path."""
        return f"{self.url}/{path}" if path else self.url

    @abstractmethod
    def stat(self, path: str) -> FileState:
        """State of a file.

        Raises:
            FileNotFoundError: If there is no such file.
            InvalidLocationError: If it is not a file, is in an inner root, or a link leads outside the root.
        """

    @abstractmethod
    def read(self, path: str, start: int, stop: int, version: str) -> bytes:
        """Read the bytes from `start` to `stop` (exclusive) of a file of this version.

        Raises:
            ChangedSourceError: If the file is of another version, or no longer exists.
            InvalidLocationError: As `stat` does.
        """

    @abstractmethod
    def list(self, path: str) -> dict[str, int]:
        """Sizes of all files below a directory, by path relative to this directory, in an order that does not change.

        Empty if there is no such directory. Below it, links to directories are not followed.

        Raises:
            InvalidLocationError: If there are more files than `MAX_LISTED_FILES`, `path` is in an inner root, or a link
                in `path` leads outside the root.
        """

    @abstractmethod
    def write(self, path: str, pieces: Iterable[bytes | memoryview]) -> None:
        """Write a file from its pieces; it appears once it is complete, and replaces a file of the same name.

        Raises:
            InvalidLocationError: If a directory in its path is a link or a file, it is itself a directory, or it is in
                an inner root.
        """

    @abstractmethod
    def create(self, path: str, data: bytes) -> bool:
        """Write a file unless one exists at this path; return whether it was written.

        Raises:
            InvalidLocationError: As `write` does.
        """

    @abstractmethod
    def check_writable(self, path: str) -> None:
        """Check that nothing is at a path, or in its directories, that would prevent `write`; nothing is written.

        Raises:
            InvalidLocationError: As `write` does.
        """

    @abstractmethod
    def delete(self, path: str) -> None:
        """Delete a file, if it exists.

        Raises:
            InvalidLocationError: As `write` does.
        """

    def get(self, path: str, limit: int, reserve_memory: Callable[[int], None] | None = None) -> bytes:
        """Read a small file as a whole.

        Args:
            path: Its path.
            limit: Maximum of its size in bytes.
            reserve_memory: Called with its size, before it is read; it may raise an error of its own.

        Raises:
            FileNotFoundError: If there is no such file.
            InvalidLocationError: If it has more than `limit` bytes, and as `stat` does.
            ChangedSourceError: If it was changed or deleted while it was read.
        """
        state = self.stat(path)
        if state.size > limit:
            raise InvalidLocationError(
                self.location(path), f"it has {state.size} bytes, and at most {limit} are read at once"
            )
        if reserve_memory is not None:
            reserve_memory(state.size)
        return self.read(path, 0, state.size, state.version)

    def inner_root_error(self, path: str) -> InvalidLocationError:
        """Return the error of a path that is in a root inside this one, or whose links lead there."""
        return InvalidLocationError(self.location(path), "it is in another root, which is inside this one")

    def missing_file_error(self, path: str) -> ChangedSourceError:
        """Return the error of a file that no longer exists."""
        return ChangedSourceError(self.location(path), "it no longer exists")

    def check_file_count(self, path: str, count: int) -> None:
        """Raise `InvalidLocationError` if a directory has more than `MAX_LISTED_FILES` files."""
        if count > MAX_LISTED_FILES:
            raise InvalidLocationError(self.location(path), f"more than {MAX_LISTED_FILES} files are below it")
