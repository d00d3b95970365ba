"""Locates the tensors that a job document names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from masksmith.layouts import Layout, LayoutError
from masksmith_service.errors import RequestError
from masksmith_state.jobs.shards import PlannedTensor, Source
from masksmith_wire.documents import TensorInput
from masksmith_wire.errors import Code
from masksmith_wire.headers import Header, TensorEntry
from masksmith_wire.specification import JobSpecification, SpecificationError

from .located_tensors import candidate_of, describe_file, file_members, locate, select_tensors, with_own_patterns


def locate_named(
    tensors: list[TensorInput],
    specification: JobSpecification,
    headers: Mapping[str, Header],
    sources: Mapping[str, Source],
) -> list[PlannedTensor]:
    """Locate the tensors that a job document names; each of them must fit its pattern and its layout.

    Args:
        tensors: The tensors, as the document names them.
        specification: The job's specification.
        headers: Headers of all files that the tensors are in, by digest or reference.
        sources: The files in roots, by reference.

    Raises:
        RequestError: If a tensor is not in its file; two have the same name; a pattern or a layout is invalid; a tensor
            does not fit its pattern or its layout; or a layout does not go with the job's budget.
    """
    entries = [_entry(tensor, headers) for tensor in tensors]
    with_pattern = cache(specification.with_own_pattern)
    specification_by_tensor = {tensor.name: _own_specification(tensor, with_pattern) for tensor in tensors}
    user_layouts = {tensor.name: _parse_layout(tensor) for tensor in tensors if tensor.layout is not None}
    candidates = [
        candidate_of(tensor.name, entry, headers[tensor.file]) for tensor, entry in zip(tensors, entries, strict=True)
    ]
    _, layouts = select_tensors(
        candidates, specification, specification_by_tensor, user_layouts, [tensor.name for tensor in tensors], []
    )
    planned_tensors = [
        locate(
            tensor.name,
            file_members(tensor.file, sources),
            entry,
            layouts[tensor.name],
            specification_by_tensor[tensor.name],
        )
        for tensor, entry in zip(tensors, entries, strict=True)
    ]
    return with_own_patterns(planned_tensors, specification_by_tensor, specification)


def _entry(tensor: TensorInput, headers: Mapping[str, Header]) -> TensorEntry:
    entry = headers[tensor.file].tensors.get(tensor.key)
    if entry is None:
        detail = f"tensor {tensor.name!r}: {describe_file(tensor)} has no tensor {tensor.key!r}"
        raise RequestError(Code.UNKNOWN_TENSOR, detail, tensor=tensor.name)
    return entry


def _own_specification(tensor: TensorInput, with_pattern: Callable[[str | None], JobSpecification]) -> JobSpecification:
    try:
        return with_pattern(tensor.pattern)
    except SpecificationError as error:
        members = error.invalid_options | {"tensor": tensor.name}
        raise RequestError(error.code, f"tensor {tensor.name!r}: {error}", **members) from None


def _parse_layout(tensor: TensorInput) -> Layout:
    assert tensor.layout is not None
    try:
        return tensor.layout.parse()
    except LayoutError as error:
        raise RequestError(Code.INVALID_LAYOUT, f"tensor {tensor.name!r}: {error}", tensor=tensor.name) from None
