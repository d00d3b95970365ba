"""Selects, among the tensors of a request, those that the job masks, and locates them in their files.

`named_tensors` and `selected_tensors` call these functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from masksmith.layouts import Candidate, Layout, LayoutError, Selection, SelectionError, select, with_layouts
from masksmith_service.errors import RequestError
from masksmith_state.jobs.shards import PlannedTensor, Source
from masksmith_wire.documents import FileInput, Skipped
from masksmith_wire.errors import Code
from masksmith_wire.headers import Header, TensorEntry
from masksmith_wire.specification import JobSpecification


def file_members(file: str, sources: Mapping[str, Source]) -> dict[str, Any]:
    """Return the member of a `PlannedTensor` that names its file: `source` if the file is in a root, else `digest`.

    Args:
        file: Reference of the file, or digest of the upload.
        sources: The files in roots, by reference.
    """
    return {"source": sources[file]} if file in sources else {"digest": file}


def describe_file(tensor: FileInput) -> str:
    """Name the file of a tensor in a message."""
    return f"upload {tensor.digest}" if tensor.reference is None else repr(tensor.reference)


def candidate_of(name: str, entry: TensorEntry, header: Header) -> Candidate:
    """Describe a tensor for `select_tensors`; `header` is that of its file."""
    return Candidate(name, entry.shape, entry.dtype, file_format=header.metadata.get("format", ""))


def select_tensors(
    candidates: list[Candidate],
    specification: JobSpecification,
    specification_by_tensor: Mapping[str, JobSpecification],
    user_layouts: Mapping[str, Layout],
    layers: list[str],
    exclude: list[str],
    config: Mapping[str, Any] | None = None,
) -> tuple[Selection, dict[str, Layout]]:
    """Select the tensors that a job masks.

    Args:
        candidates: The tensors to select from.
        specification: The job's specification.
        specification_by_tensor: The specification of each tensor, by name: the job's, with the pattern that applies to
            the tensor. A tensor without an entry has no pattern and stays dense.
        user_layouts: Layouts that the request gives, by tensor name.
        layers: Names or globs of the tensors to select; if empty, all that fit, except embeddings, heads and other
            tensors that stay dense by default (see `masksmith.layouts.with_layouts`).
        exclude: Names or globs of the tensors to leave out.
        config: The `config.json` of the candidates' model; None if there is none.

    Returns:
        The selection, and the layouts by tensor name; each selected tensor has one.

    Raises:
        RequestError: If a layout is invalid, a name or glob matches nothing, a named tensor does not fit, two tensors
            have the same name, or no tensor is selected.
    """
    try:
        candidates = with_layouts(candidates, user_layouts, config)
        patterns = {name: each.fitting_pattern for name, each in specification_by_tensor.items()}
        selection = select(
            candidates,
            patterns,
            layers,
            exclude,
            whole_tensor_needed_by=specification.whole_tensor_needed_by,
            in_parts=True,
        )
    except LayoutError as error:
        raise RequestError(Code.INVALID_LAYOUT, str(error)) from None
    except SelectionError as error:
        texts = dict.fromkeys(each.options.pattern for each in specification_by_tensor.values())
        raise _selection_error(error, len(candidates), ", ".join(texts)) from None
    layouts = {candidate.name: candidate.layout for candidate in candidates if candidate.layout is not None}
    return selection, layouts


def locate(
    name: str,
    members: Mapping[str, Any],
    entry: TensorEntry,
    layout: Layout,
    specification: JobSpecification,
) -> PlannedTensor:
    """Return the location of a selected tensor in its file, and its layout, as the job's plan records them.

    Args:
        name: The tensor's name in the results.
        members: The member that names the tensor's file; see `file_members`.
        entry: The tensor's entry in the file's header.
        layout: The tensor's layout.
        specification: The job's specification, with the tensor's own pattern.

    Raises:
        RequestError: If the job has a budget, and the layout is not plain (see `Layout.is_plain`).
    """
    tensor = PlannedTensor(name=name, **members, dtype=entry.dtype, shape=list(entry.shape), start=entry.start)
    if layout.is_plain(specification.fitting_pattern, entry.shape):
        return tensor.model_copy(update={"rule": layout.rule})
    # Fused parts are recorded only if they are solved separately.
    parts = list(layout.out_parts) if len(layout.row_ranges(specification.fitting_pattern, entry.shape)) > 1 else []
    if specification.budget is not None:
        detail = (
            f"tensor {name!r}: a budget does not go with its layout {str(layout)!r}; exclude it, or use the library"
        )
        raise RequestError(Code.INVALID_BUDGET, detail, tensor=name)
    return tensor.model_copy(update={"axes": str(layout), "out_parts": parts, "rule": layout.rule})


def with_own_patterns(
    tensors: list[PlannedTensor],
    specification_by_tensor: Mapping[str, JobSpecification],
    specification: JobSpecification,
) -> list[PlannedTensor]:
    """Return the tensors; if one of them has another pattern than the job, set `pattern` in all of them."""
    texts = {tensor.name: specification_by_tensor[tensor.name].options.pattern for tensor in tensors}
    if set(texts.values()) <= {specification.options.pattern}:
        return tensors
    return [tensor.model_copy(update={"pattern": texts[tensor.name]}) for tensor in tensors]


def _selection_error(error: SelectionError, count: int, pattern: str) -> RequestError:
    if error.kind == "nothing_left":
        skipped = [Skipped(name=name, reason=reason) for name, reason in error.skipped.items()]
        return no_tensor_fits_error(count, pattern, skipped)
    if error.kind == "unsupported":
        detail = f"tensor {error.name!r}: {error.reason}"
        return RequestError(Code.TENSOR_DOES_NOT_FIT, detail, tensor=error.name)
    code = Code.UNKNOWN_TENSOR if error.kind == "unmatched" else Code.INVALID_DOCUMENT
    return RequestError(code, str(error), tensor=error.name)


def no_tensor_fits_error(count: int, pattern: str, skipped: list[Skipped]) -> RequestError:
    """Return the error for a job without a tensor to mask."""
    detail = f"none of the {count} tensor(s) can be masked with {pattern!r}" if count else "there are no tensors"
    return RequestError(Code.NO_TENSOR_FITS, detail, skipped=[skip.model_dump() for skip in skipped[:20]])
