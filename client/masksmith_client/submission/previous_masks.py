"""Identify the previous masks that a job is compared with: masks of another job, in a root, or in a file to upload."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from masksmith_client._errors import InputError
from masksmith_client._job_view import JobView
from masksmith_client.results.masks import Masks
from masksmith_wire.locations import is_in_bucket, is_reference

from .streamed_tensor import PIECE_BYTES, StreamedTensor

JOB_ID = re.compile(r"[0-9a-f]{1,64}")


class MasksUpload(StreamedTensor):
    """A masks file that is uploaded unchanged."""

    def header(self) -> bytes:
        """Return an empty header: the file has its own."""
        return b""


def parse_previous(source: object) -> tuple[str | None, Path | None]:
    """Return two values: a job's id or a reference, else None; and the path of a masks file, else None.

    Args:
        source: A job or its id, masks downloaded from a job or opened from a file, the path of a masks file, the
            reference of a masks file or of an output in a root (`s3://...`, or an absolute path that does not exist on
            this machine), or None.

    Raises:
        InputError: If `source` is none of these; if a file is not a masks file; or if masks that were opened from a
            file are closed, or their file was replaced.
    """
    if source is None:
        return None, None
    if isinstance(source, Masks):
        source = _origin(source)
    if isinstance(source, JobView):
        return source.id, None
    if isinstance(source, (str, os.PathLike)) and os.path.isfile(source):
        Masks.open(source).close()
        return None, Path(source)
    if isinstance(source, str) and (JOB_ID.fullmatch(source) or _is_remote_reference(source)):
        return source, None
    raise InputError(f"previous={source!r} is not a job, masks of a job, or the path or reference of a masks file")


def previous_reference(source: object) -> str | None:
    """Return the id of a previous job, or the reference of masks in a root; None for None.

    Args:
        source: As for `parse_previous`, but every path is taken as a reference, so that the service reads the masks
            itself. A text that looks like an id is an id, unless a file of that name exists here; then it is a path.

    Raises:
        InputError: As `parse_previous` does, but no path is checked.
    """
    if isinstance(source, Masks):
        source = _origin(source)
    is_id = isinstance(source, str) and JOB_ID.fullmatch(source) and not os.path.exists(source)
    if isinstance(source, str | os.PathLike) and not is_id:
        path = os.fspath(source)
        return path if is_in_bucket(path) else os.path.abspath(path)
    return parse_previous(source)[0]


def _origin(masks: Masks) -> JobView | Path:
    """Return the job that computed masks, or the path of their file.

    Raises:
        InputError: If the masks were opened from a file, and are closed; or if the file was replaced or removed.
    """
    origin = masks.path if masks.job is None else masks.job
    if origin is None:
        raise InputError(
            f"previous={masks!r}: these masks are closed, or their file was replaced: pass the path of a masks file"
        )
    return origin


def _is_remote_reference(source: str) -> bool:
    """Whether a text is a reference to something that is not on this machine."""
    return is_reference(source) and (is_in_bucket(source) or not os.path.exists(source))


def masks_upload(path: Path) -> MasksUpload:
    """Return a masks file as a tensor to upload."""
    return MasksUpload(str(path), "U8", (path.stat().st_size,), lambda: _read(path))


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
