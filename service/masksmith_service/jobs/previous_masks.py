"""Previous masks: where an earlier job, or an uploaded masks file, has the mask of each tensor."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from masksmith_state.blobs.store import result_name, upload_name
from masksmith_state.jobs.model import JobRecord, ShardReport
from masksmith_state.jobs.shards import MaskPart, Shard
from masksmith_wire.digests import is_digest
from masksmith_wire.errors import Code, RequestError
from masksmith_wire.headers import Header
from masksmith_wire.masks import packed_width, read_infos

from .masks_file import finished

Shape = tuple[int, ...]
MasksOf = Callable[[str], tuple[JobRecord, Mapping[int, Shard], Mapping[int, ShardReport]]]
"""Reads a job of the caller's, with its shards and their reports; raises `RequestError` if there is none."""


class Previous:
    """Masks by the names of their tensors: shape, and where the parts are."""

    def __init__(self, named: str | None, masks: Mapping[str, tuple[Shape, list[MaskPart]]]) -> None:
        self._named, self._masks, self._found = named, masks, False

    def find(self, name: str, shape: Shape) -> list[MaskPart] | None:
        """Locate a tensor's earlier mask; None if there is none of that name.

        Raises:
            RequestError: If it has another shape.
        """
        if name not in self._masks:
            return None
        was, parts = self._masks[name]
        if was != shape:
            detail = f"tensor {name!r} has shape {list(shape)}, its previous mask {list(was)}"
            raise RequestError(422, Code.INVALID_PREVIOUS, detail, tensor=name)
        self._found = True
        return parts

    def check_found(self) -> None:
        """Refuse previous masks of which no tensor has one: they are another model's.

        Raises:
            RequestError: Naming them.
        """
        if self._named is not None and not self._found:
            held = ", ".join(list(self._masks)[:4]) or "none"
            detail = f"previous={self._named}: no tensor of this job has a mask there; there are masks of {held}"
            raise RequestError(422, Code.INVALID_PREVIOUS, detail, previous=self._named)


def previous_masks(named: str | None, header_of: Callable[[str], Header], masks_of: MasksOf) -> Previous:
    """Read what masks an earlier job, or an uploaded file, has.

    Raises:
        RequestError: If there is no such job or upload, or it is no masks file.
    """
    if named is None:
        return Previous(None, {})
    return Previous(named, _of_file(named, header_of(named)) if is_digest(named) else _of_job(*masks_of(named)))


def _of_job(
    record: JobRecord, shards: Mapping[int, Shard], reports: Mapping[int, ShardReport]
) -> dict[str, tuple[Shape, list[MaskPart]]]:
    return {
        tensor.name: (
            tuple(tensor.shape),
            [
                MaskPart(blob=result_name(str(report.result)), start=0, first=shard.first, last=shard.last)
                for shard, report in done
            ],
        )
        for tensor, done in finished(record, shards, reports)
    }


def _of_file(digest: str, header: Header) -> dict[str, tuple[Shape, list[MaskPart]]]:
    try:
        infos = read_infos(header.metadata) if header.metadata else {}
    except (ValueError, json.JSONDecodeError):
        infos = {}
    found: dict[str, tuple[Shape, list[MaskPart]]] = {}
    for name, entry in header.tensors.items():
        is_bool = entry.dtype == "BOOL"
        shape = entry.shape if is_bool or name not in infos else tuple(infos[name].shape)
        packed = entry.dtype == "U8" and name in infos and entry.shape == (*shape[:-1], packed_width(shape))
        if not shape or not (is_bool or packed):
            detail = f"upload {digest} is no masks file: {name!r} is neither bool nor a packed mask"
            raise RequestError(422, Code.INVALID_PREVIOUS, detail, previous=digest)
        whole = MaskPart(blob=upload_name(digest), start=entry.start, first=0, last=shape[0], is_bool=is_bool)
        found[name] = shape, [whole]
    return found
