"""The interface of a root, which is a directory or a prefix of a bucket."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from masksmith_state.errors import ChangedSourceError, InvalidLocationError

MAX_LISTED = 10_000
"""Files of a directory that are listed."""


class FileState(NamedTuple):
    """Size of a file, and what changes when it is written: size and time of change in a directory, ETag in a bucket."""

    size: int
    version: str


@dataclass(frozen=True)
class Root(ABC):
    """A directory, or a prefix of a bucket; `path` is relative to it, with `/` between names.

    All methods raise `RootUnavailableError` if the root does not answer or refuses.

    Attributes:
        url: Its normalised location.
    """

    url: str

    def location(self, path: str) -> str:
        """Location of a path."""
        return f"{self.url}/{path}" if path else self.url

    @abstractmethod
    def stat(self, path: str) -> FileState:
        """State of a file.

        Raises:
            FileNotFoundError: If there is no such file.
            InvalidLocationError: If it is not a file, or a link leads outside the root.
        """

    @abstractmethod
    def read(self, path: str, start: int, stop: int, version: str) -> bytes:
        """Read the bytes from `start` to `stop` (exclusive) of a file of this version.

        Raises:
            ChangedSourceError: If the file is of another version, or no longer exists.
            InvalidLocationError: As `stat`.
        """

    @abstractmethod
    def list(self, path: str) -> dict[str, int]:
        """Sizes of all files below a directory, by path relative to it, in order; empty if there is no such directory.

        Links to directories are not followed.

        Raises:
            InvalidLocationError: If there are more than `MAX_LISTED`.
        """

    @abstractmethod
    def write(self, path: str, pieces: Iterable[bytes | memoryview]) -> None:
        """Write a file from its pieces; it appears once it is complete, and replaces what has its name.

        Raises:
            InvalidLocationError: If its path contains a link.
        """

    @abstractmethod
    def create(self, path: str, data: bytes) -> bool:
        """Write a file unless there is one of this name; returns whether it was written."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Delete a file, if it exists."""

    def get(self, path: str, limit: int) -> bytes:
        """Read a small file as a whole.

        Raises:
            FileNotFoundError: If there is no such file.
            InvalidLocationError: If it has more than `limit` bytes, or as `stat`.
            ChangedSourceError: If it is written meanwhile.
        """
        state = self.stat(path)
        if state.size > limit:
            raise InvalidLocationError(
                self.location(path), f"it has {state.size} bytes, and at most {limit} are read at once"
            )
        return self.read(path, 0, state.size, state.version)

    def no_longer_exists(self, path: str) -> ChangedSourceError:
        """Error of a file that no longer exists."""
        return ChangedSourceError(self.location(path), "it no longer exists")

    def check_listed(self, path: str, count: int) -> None:
        """Refuse a directory with too many files."""
        if count > MAX_LISTED:
            raise InvalidLocationError(self.location(path), f"more than {MAX_LISTED} files are below it")
