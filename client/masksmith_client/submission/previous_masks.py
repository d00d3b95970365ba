"""Previous masks that a job is compared with: an earlier job's, or a masks file that travels as it is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from masksmith_client._errors import InputError
from masksmith_client._job_view import JobView
from masksmith_client.results.masks import Masks

from .weights import PIECE_BYTES, Weight

JOB = re.compile(r"[0-9a-f]{1,64}")


class MasksUpload(Weight):
    """A masks file on its way to the service, byte by byte as it lies on the disk."""

    def header(self) -> bytes:
        """Nothing is put in front of it."""
        return b""


def previous_of(source: object) -> tuple[str | None, Path | None]:
    """Tell an earlier job, by its id, from a masks file, by its path.

    Args:
        source: A job or its id, the masks that a job gave, or the path of a masks file.

    Raises:
        InputError: If it is none of these.
    """
    if source is None:
        return None, None
    if isinstance(source, Masks):
        source = source.job
    if isinstance(source, JobView):
        return source.id, None
    if isinstance(source, (str, os.PathLike)) and Path(source).is_file():
        Masks.open(source).close()
        return None, Path(source)
    if isinstance(source, str) and JOB.fullmatch(source):
        return source, None
    raise InputError(f"previous={source!r} is no job, no masks of one, and no masks file")


def masks_upload(path: Path) -> MasksUpload:
    """Prepare a masks file for its journey."""
    return MasksUpload(str(path), "U8", (path.stat().st_size,), lambda: _read(path))


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
