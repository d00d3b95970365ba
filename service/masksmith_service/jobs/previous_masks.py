"""Locates the previous masks of tensors: in an earlier job, an uploaded masks file, or a masks file in a root."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from masksmith_service.errors import RequestError
from masksmith_state.blobs.names import result_name, upload_name
from masksmith_state.jobs.shards import MaskPart, PlannedTensor, Source
from masksmith_wire.digests import is_digest
from masksmith_wire.errors import Code
from masksmith_wire.headers import Header
from masksmith_wire.json_text import DuplicateMemberError
from masksmith_wire.masks import packed_width, read_infos

from .results import FinishedTensors

Shape = tuple[int, ...]
ReadFinished = Callable[[str], FinishedTensors]
"""Reads the finished tensors of a job; raises `RequestError` if the principal is not authorized to see it."""


def add_previous(
    tensors: list[PlannedTensor],
    previous: str | None,
    headers: Mapping[str, Header],
    sources: Mapping[str, Source],
    read_finished: ReadFinished,
) -> list[PlannedTensor]:
    """Add to each tensor the location of its previous mask, if it has one: in a job, an upload, or a file in a root.

    Args:
        tensors: The tensors of the job.
        previous: Id of the job, or digest or reference of the masks file; None if the request names no previous masks.
        headers: Headers of all files that the job reads, by digest or reference.
        sources: The files in roots, by reference.
        read_finished: Reads the finished tensors of a job.

    Raises:
        RequestError: If the file is not a masks file, a previous mask has another shape than its tensor, or no tensor
            has a previous mask; or as `read_finished` does.
    """
    if previous is None:
        return tensors
    is_file = is_digest(previous) or previous in sources
    masks = _masks_of_file(previous, headers[previous], sources) if is_file else _masks_of_job(read_finished(previous))
    if not any(tensor.name in masks for tensor in tensors):
        names = ", ".join([*list(masks)[:4], *(["..."] if len(masks) > 4 else [])]) or "none"
        detail = f"previous={previous}: it contains no mask for any tensor of this job; its masks: {names}"
        raise RequestError(Code.INVALID_PREVIOUS, detail, previous=previous)
    for tensor in tensors:
        shape = masks[tensor.name][0] if tensor.name in masks else tuple(tensor.shape)
        if shape != tuple(tensor.shape):
            detail = f"tensor {tensor.name!r} has shape {tensor.shape}, its previous mask {list(shape)}"
            raise RequestError(Code.INVALID_PREVIOUS, detail, tensor=tensor.name)
    return [
        tensor.model_copy(update={"previous": masks[tensor.name][1]}) if tensor.name in masks else tensor
        for tensor in tensors
    ]


def _masks_of_job(tensors: FinishedTensors) -> dict[str, tuple[Shape, list[MaskPart]]]:
    return {
        tensor.name: (
            tuple(tensor.shape),
            [
                MaskPart(
                    blob=result_name(key),
                    result=key,
                    digest=report.mask_digest,
                    start=0,
                    first=shard.first,
                    last=shard.last,
                )
                for shard, report in parts
                if (key := report.result) is not None
            ],
        )
        for tensor, parts in tensors
    }


def _masks_of_file(file: str, header: Header, sources: Mapping[str, Source]) -> dict[str, tuple[Shape, list[MaskPart]]]:
    location = {"source": sources[file]} if file in sources else {"blob": upload_name(file)}
    file_text = repr(file) if file in sources else f"upload {file}"
    try:
        infos = read_infos(header.metadata) if header.metadata else {}
    except DuplicateMemberError as error:
        detail = f"the list of masks in {file_text} is ambiguous: {error}"
        raise RequestError(Code.INVALID_PREVIOUS, detail, previous=file) from None
    except ValueError:  # Another program wrote the metadata.
        infos = {}
    masks: dict[str, tuple[Shape, list[MaskPart]]] = {}
    for name, entry in header.tensors.items():
        is_bool, has_info = entry.dtype == "BOOL", name in infos
        shape = tuple(infos[name].shape) if has_info and not is_bool else entry.shape
        is_packed = (
            bool(shape) and has_info and entry.dtype == "U8" and entry.shape == (*shape[:-1], packed_width(shape))
        )
        if not shape or not (is_bool or is_packed):
            reason = "neither bool nor a packed mask" if shape else "a scalar, not a mask"
            detail = f"{file_text} is not a masks file: {name!r} is {reason}"
            raise RequestError(Code.INVALID_PREVIOUS, detail, previous=file)
        part = MaskPart(**location, start=entry.start, first=0, last=shape[0], is_bool=is_bool)
        masks[name] = shape, [part]
    return masks
