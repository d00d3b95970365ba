"""Plans masks jobs: parses the request, and locates the tensors and checks that they fit the pattern."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from masksmith.layouts import Candidate, Selection, SelectionError, select
from masksmith.patterns import PatternError
from masksmith_service.errors import RequestError
from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.shards import PlannedTensor
from masksmith_wire.documents import MasksOptions, MasksRequest, Skipped, TensorInput
from masksmith_wire.errors import Code
from masksmith_wire.headers import Header, TensorEntry
from masksmith_wire.specification import JobSpecification, SpecificationError


class FileOptions(MasksOptions):
    """Options of a job on an uploaded file; `layers` and `exclude` are globs of tensor names, and can be repeated."""

    layers: Annotated[list[Annotated[str, Field(max_length=512)]], Field(default_factory=list, max_length=1000)]
    exclude: Annotated[list[Annotated[str, Field(max_length=512)]], Field(default_factory=list, max_length=1000)]


def parse_specification(options: MasksOptions) -> JobSpecification:
    """Parse the options of a request.

    Raises:
        RequestError: If they are invalid.
    """
    try:
        return JobSpecification.parse(options)
    except SpecificationError as error:
        raise RequestError(error.code, str(error), **error.place) from None


def parse_document(document: MasksRequest, max_tensors: int) -> JobSpecification:
    """Parse a job document, and check the number of tensors.

    Raises:
        RequestError: If it is invalid.
    """
    specification = parse_specification(document)
    if len(document.tensors) > max_tensors:
        detail = f"the job names {len(document.tensors)} tensors, max_tensors is {max_tensors}"
        raise RequestError(Code.TOO_MANY_TENSORS, detail, limit=max_tensors)
    return specification


def locate_named(
    tensors: list[TensorInput], specification: JobSpecification, headers: Mapping[str, Header]
) -> list[PlannedTensor]:
    """Locate the tensors that a job document names; each of them must fit.

    Raises:
        RequestError: If a tensor is missing, named twice, or does not fit.
    """
    entries = [(tensor.name, _entry(tensor, headers)) for tensor in tensors]
    _select(entries, specification, [tensor.name for tensor in tensors], [])
    pairs = zip(tensors, entries, strict=True)
    return [_locate(tensor.name, tensor.digest, entry) for tensor, (_, entry) in pairs]


def locate_selected(
    options: FileOptions, specification: JobSpecification, digest: str, header: Header
) -> tuple[list[PlannedTensor], Selection]:
    """Select tensors of a file by `layers` and `exclude`; by default every float weight that fits.

    Returns:
        The selected tensors, located; and the selection, which has the reasons why others were skipped.

    Raises:
        RequestError: If a name or glob matches nothing, a tensor given by its full name does not fit, or no tensor is
            selected.
    """
    selection = _select(list(header.tensors.items()), specification, options.layers, options.exclude)
    return [_locate(name, digest, header.tensors[name]) for name in selection.chosen], selection


def make_plan(specification: JobSpecification, tensors: list[PlannedTensor], skipped: list[Skipped]) -> MasksPlan:
    """Make the plan of a job whose tensors have been located.

    Raises:
        RequestError: If there are none, or the budget cannot be met.
    """
    options = specification.options
    if not tensors:
        raise _no_tensor_fits(len(skipped), options.pattern, skipped)
    try:
        if specification.budget is not None:
            shapes = {tensor.name: tuple(tensor.shape) for tensor in tensors}
            specification.budget.check(shapes, specification.pattern)
    except PatternError as error:
        raise RequestError(Code.INVALID_BUDGET, str(error), budget=options.budget, floors=options.floors) from None
    return MasksPlan(options=options, tensors=tensors, skipped=skipped)


def _entry(tensor: TensorInput, headers: Mapping[str, Header]) -> TensorEntry:
    entry = headers[tensor.digest].tensors.get(tensor.key)
    if entry is None:
        detail = f"tensor {tensor.name!r}: upload {tensor.digest} holds no {tensor.key!r}"
        raise RequestError(Code.UNKNOWN_TENSOR, detail, tensor=tensor.name)
    return entry


def _select(
    entries: list[tuple[str, TensorEntry]], specification: JobSpecification, layers: list[str], exclude: list[str]
) -> Selection:
    candidates = [Candidate(name, entry.shape, entry.dtype) for name, entry in entries]
    try:
        return select(candidates, specification.fitting_pattern, layers, exclude, bound=specification.binding)
    except SelectionError as error:
        raise _selection_error(error, len(entries), specification.options.pattern) from None


def _selection_error(error: SelectionError, count: int, pattern: str) -> RequestError:
    if error.kind == "nothing_left":
        skipped = [Skipped(name=name, reason=reason) for name, reason in error.skipped.items()]
        return _no_tensor_fits(count, pattern, skipped)
    if error.kind == "unsupported":
        detail = f"tensor {error.name!r}: {error.reason}"
        return RequestError(Code.TENSOR_DOES_NOT_FIT, detail, tensor=error.name)
    code = Code.UNKNOWN_TENSOR if error.kind == "unmatched" else Code.INVALID_DOCUMENT
    return RequestError(code, str(error), tensor=error.name)


def _no_tensor_fits(count: int, pattern: str, skipped: list[Skipped]) -> RequestError:
    detail = f"none of the file's {count} tensor(s) can be masked with {pattern!r}"
    return RequestError(Code.NO_TENSOR_FITS, detail, skipped=[skip.model_dump() for skip in skipped[:20]])


def _locate(name: str, digest: str, entry: TensorEntry) -> PlannedTensor:
    return PlannedTensor(name=name, digest=digest, dtype=entry.dtype, shape=list(entry.shape), start=entry.start)
