"""Data directories of `masksmith up`, locked for a test."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from masksmith_service.local.data_directory import DataDirectory


@contextlib.contextmanager
def held(path: Path) -> Iterator[DataDirectory]:
    """A locked data directory, which is released at the end of the block."""
    directory = DataDirectory(path)
    try:
        yield directory
    finally:
        directory.release()
