"""Plans masks jobs: parses the request, and locates the tensors and checks that they fit the pattern."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import Field, ValidationError

from masksmith.layouts import Candidate, Layout, LayoutError, Selection, SelectionError, select, with_layouts
from masksmith.patterns import PatternError, TensorPatterns, UnmatchedSelectorError
from masksmith_service.bounds.table import limit
from masksmith_service.errors import RequestError
from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.shards import PlannedTensor, Source
from masksmith_wire.documents import Digest, FileInput, MasksOptions, MasksRequest, Reference, Skipped, TensorInput
from masksmith_wire.errors import Code
from masksmith_wire.headers import Header, TensorEntry
from masksmith_wire.names import MAX_LABELS, JobDescription, JobName, parse_labels
from masksmith_wire.priorities import Priority
from masksmith_wire.specification import JobSpecification, SpecificationError
from masksmith_wire.validation import reason as reason_of

MAX_GLOB_STEPS = limit("glob_steps")


class FileOptions(MasksOptions):
    """Options of a job on an uploaded file.

    `pattern` is a pattern for all tensors, or `SELECTOR=PATTERN`, such as `mlp=transposable 8:16`; `layers` and
    `exclude` are globs of tensor names, `layout` is `NAME=AXES`, such as `w1=stack in out`, `label` is `KEY=VALUE`, and
    `also` is the digest of another uploaded file, such as another shard of the checkpoint; all can be repeated.
    """

    pattern: Annotated[  # type: ignore[assignment]  # several here, one in each job's specification
        list[Annotated[str, Field(max_length=700, examples=["2:4", "mlp=transposable 8:16"])]],
        Field(min_length=1, max_length=100),
    ]

    layers: Annotated[list[Annotated[str, Field(max_length=512)]], Field(default_factory=list, max_length=1000)]
    layout: Annotated[list[Annotated[str, Field(max_length=600)]], Field(default_factory=list, max_length=1000)]
    exclude: Annotated[list[Annotated[str, Field(max_length=512)]], Field(default_factory=list, max_length=1000)]
    also: Annotated[list[Digest], Field(default_factory=list, max_length=1000)]
    name: JobName | None = None
    priority: Priority = Priority.NORMAL
    require_worker: bool = False
    label: Annotated[list[Annotated[str, Field(max_length=200)]], Field(default_factory=list, max_length=MAX_LABELS)]


class ModelOptions(FileOptions):
    """Options of a job that writes a pruned copy of a model; `model` and `output` are references."""

    model: Reference
    output: Reference


def parse_specification(options: MasksOptions) -> JobSpecification:
    """Parse the options of a request.

    Raises:
        RequestError: If they are invalid.
    """
    try:
        return JobSpecification.parse(options)
    except SpecificationError as error:
        raise RequestError(error.code, str(error), **error.place) from None


def parse_patterns(options: FileOptions) -> TensorPatterns:
    """Parse the patterns of a job on a file.

    Raises:
        RequestError: If one is invalid.
    """
    try:
        return TensorPatterns.parse(options.pattern, options.axis, options.ragged)
    except PatternError as error:
        raise RequestError(Code.INVALID_PATTERN, str(error), pattern=", ".join(options.pattern)[:700]) from None


def parse_file_options(options: FileOptions) -> JobSpecification:
    """Parse the options of a job on a file; its pattern is the default, or the first one if there is none.

    Raises:
        RequestError: If they are invalid.
    """
    patterns = parse_patterns(options)
    members = {name: getattr(options, name) for name in MasksOptions.model_fields} | {"pattern": str(patterns.first)}
    specification = parse_specification(MasksOptions.model_construct(**members))
    try:
        for pattern in patterns.rules.values():
            specification.with_own_pattern(str(pattern))
    except SpecificationError as error:
        raise RequestError(error.code, str(error), **error.place) from None
    return specification


def describe_file_job(options: FileOptions) -> JobDescription:
    """Read name and labels of a job on a file.

    Raises:
        RequestError: If a label is invalid.
    """
    try:
        return JobDescription(name=options.name, labels=parse_labels(options.label), priority=options.priority)
    except ValidationError as error:
        reason = error.errors()[0]
        place = ".".join(str(part) for part in reason["loc"])
        raise RequestError(Code.INVALID_DOCUMENT, f"{place}: {reason_of(reason)}") from None
    except ValueError as error:
        raise RequestError(Code.INVALID_DOCUMENT, str(error)) from None


def parse_document(document: MasksRequest, max_tensors: int) -> JobSpecification:
    """Parse a job document, and check the number of tensors.

    Raises:
        RequestError: If it is invalid.
    """
    specification = parse_specification(document)
    check_count(len(document.tensors), max_tensors)
    return specification


def check_count(count: int, max_tensors: int) -> None:
    """Check the number of tensors of a job.

    Raises:
        RequestError: If there are too many.
    """
    if count > max_tensors:
        detail = f"the job names {count} tensors, max_tensors is {max_tensors}"
        raise RequestError(Code.TOO_MANY_TENSORS, detail, limit=max_tensors)


def locate_named(
    tensors: list[TensorInput],
    specification: JobSpecification,
    headers: Mapping[str, Header],
    sources: Mapping[str, Source],
) -> list[PlannedTensor]:
    """Locate the tensors that a job document names; each of them must fit.

    Args:
        tensors: The tensors.
        specification: The job's specification.
        headers: Headers of all files that they are in, by digest or reference.
        sources: The files in roots, by reference.

    Raises:
        RequestError: If a tensor is missing, named twice, or does not fit.
    """
    entries = [(tensor.name, _entry(tensor, headers)) for tensor in tensors]
    of_pattern = cache(specification.with_own_pattern)
    own = {tensor.name: _own_specification(tensor, of_pattern) for tensor in tensors}
    users_layouts = {tensor.name: _parse_layout(tensor) for tensor in tensors if tensor.layout is not None}
    candidates = [
        _candidate(tensor.name, entry, headers[tensor.file])
        for tensor, (_, entry) in zip(tensors, entries, strict=True)
    ]
    _, layouts = _select(candidates, specification, own, users_layouts, [tensor.name for tensor in tensors], [])
    located = [
        _locate(tensor.name, origin(tensor.file, sources), entry, layouts[tensor.name], own[tensor.name])
        for tensor, (_, entry) in zip(tensors, entries, strict=True)
    ]
    return _with_patterns(located, own, specification)


@dataclass(frozen=True)
class ModelPlaces:
    """Where the tensors of a model by reference are.

    Attributes:
        places: Reference of the file of each tensor.
        sources: The files, by reference.
        config: The model's `config.json`.
    """

    places: Mapping[str, str]
    sources: Mapping[str, Source]
    config: Mapping[str, Any] | None


def locate_selected(
    options: FileOptions,
    specification: JobSpecification,
    files: Mapping[str, Header],
    model: ModelPlaces | None = None,
) -> tuple[list[PlannedTensor], Selection]:
    """Select tensors of files by `layers` and `exclude`; by default every float weight that fits.

    Args:
        options: The options of the request.
        specification: The job's specification.
        files: Headers by digest, or by reference for a model.
        model: Where the tensors of a model by reference are.

    Returns:
        The selected tensors, located; and the selection, which has the reasons why others were skipped.

    Raises:
        RequestError: If a name or glob matches nothing, a tensor given by its full name does not fit, no tensor is
            selected, or two files have a tensor of the same name.
    """
    model = model or ModelPlaces({}, {}, None)
    places = model.places or _places(files)
    _check_globs(options, places)
    candidates = [_candidate(name, files[file].tensors[name], files[file]) for name, file in places.items()]
    users_layouts = _parse_layouts(options.layout)
    own = _own_specifications(parse_patterns(options), list(places), specification)
    selection, layouts = _select(
        candidates, specification, own, users_layouts, options.layers, options.exclude, model.config
    )
    located = [
        _locate(name, origin(places[name], model.sources), files[places[name]].tensors[name], layouts[name], own[name])
        for name in selection.chosen
    ]
    return _with_patterns(located, own, specification), selection


def _places(files: Mapping[str, Header]) -> dict[str, str]:
    """Digest of the file that has each tensor."""
    places: dict[str, str] = {}
    for digest, header in files.items():
        for name in header.tensors:
            if places.setdefault(name, digest) != digest:
                detail = f"two of the files have a tensor {name!r}; a job has each name once"
                raise RequestError(Code.INVALID_DOCUMENT, detail, tensor=name)
    return places


def _check_globs(options: FileOptions, names: Collection[str]) -> None:
    """Check that matching all globs and selectors with all names takes a limited time."""
    texts = [*options.layers, *options.exclude, *options.pattern, *options.layout]
    steps = sum(len(text) + 1 for text in texts) * sum(len(name) + 1 for name in names)
    if steps > MAX_GLOB_STEPS:
        detail = (
            f"the globs and selectors have {sum(map(len, texts))} characters, and the names of the file's "
            f"{len(names)} tensors {sum(map(len, names))}: the product may be {MAX_GLOB_STEPS}; "
            "use fewer or shorter ones"
        )
        raise RequestError(Code.TOO_MANY_GLOBS, detail, limit=MAX_GLOB_STEPS)


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


def origin(file: str, sources: Mapping[str, Source]) -> dict[str, Any]:
    """Members of a planned tensor that say which file it is in, by digest or reference."""
    return {"source": sources[file]} if file in sources else {"digest": file}


def describe_file(tensor: FileInput) -> str:
    """Name the file of a tensor in a message."""
    return f"upload {tensor.digest}" if tensor.reference is None else repr(tensor.reference)


def _entry(tensor: TensorInput, headers: Mapping[str, Header]) -> TensorEntry:
    entry = headers[tensor.file].tensors.get(tensor.key)
    if entry is None:
        detail = f"tensor {tensor.name!r}: {describe_file(tensor)} holds no {tensor.key!r}"
        raise RequestError(Code.UNKNOWN_TENSOR, detail, tensor=tensor.name)
    return entry


def _own_specification(tensor: TensorInput, of_pattern: Callable[[str | None], JobSpecification]) -> JobSpecification:
    try:
        return of_pattern(tensor.pattern)
    except SpecificationError as error:
        place = error.place | {"tensor": tensor.name}
        raise RequestError(error.code, f"tensor {tensor.name!r}: {error}", **place) from None


def _own_specifications(
    patterns: TensorPatterns, names: Sequence[str], specification: JobSpecification
) -> dict[str, JobSpecification]:
    """The specification of each tensor of a file that has a pattern."""
    if patterns.is_single:
        return dict.fromkeys(names, specification)
    of_pattern = cache(specification.with_own_pattern)
    try:
        return {name: of_pattern(str(pattern)) for name, pattern in patterns.assign(names).items()}
    except UnmatchedSelectorError as error:
        raise RequestError(Code.UNKNOWN_TENSOR, str(error), tensor=error.selector[:512]) from None


def _candidate(name: str, entry: TensorEntry, header: Header) -> Candidate:
    return Candidate(name, entry.shape, entry.dtype, file_format=header.metadata.get("format", ""))


def _select(
    candidates: list[Candidate],
    specification: JobSpecification,
    own: Mapping[str, JobSpecification],
    given: Mapping[str, Layout],
    layers: list[str],
    exclude: list[str],
    config: Mapping[str, Any] | None = None,
) -> tuple[Selection, dict[str, Layout | None]]:
    try:
        candidates = with_layouts(candidates, given, config)
        patterns = {name: each.fitting_pattern for name, each in own.items()}
        selection = select(candidates, patterns, layers, exclude, binding=specification.binding, in_parts=True)
    except LayoutError as error:
        raise RequestError(Code.INVALID_LAYOUT, str(error)) from None
    except SelectionError as error:
        texts = dict.fromkeys(each.options.pattern for each in own.values())
        raise _selection_error(error, len(candidates), ", ".join(texts)) from None
    return selection, {candidate.name: candidate.layout for candidate in candidates}


def _parse_layout(tensor: TensorInput) -> Layout:
    assert tensor.layout is not None
    try:
        return tensor.layout.parse()
    except LayoutError as error:
        raise RequestError(Code.INVALID_LAYOUT, f"tensor {tensor.name!r}: {error}", tensor=tensor.name) from None


def _parse_layouts(texts: list[str]) -> dict[str, Layout]:
    layouts: dict[str, Layout] = {}
    for text in texts:
        name, mark, axes = text.rpartition("=")
        if not mark:
            raise RequestError(Code.INVALID_LAYOUT, f"layout {text!r} is not NAME=AXES, such as 'w1=stack in out'")
        try:
            layouts[name] = Layout.parse(axes)
        except LayoutError as error:
            raise RequestError(Code.INVALID_LAYOUT, f"layout {text!r}: {error}", tensor=name) from None
    return layouts


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


def _with_patterns(
    tensors: list[PlannedTensor], own: Mapping[str, JobSpecification], specification: JobSpecification
) -> list[PlannedTensor]:
    """Write down each tensor's pattern, unless it is the job's for all of them."""
    texts = {tensor.name: own[tensor.name].options.pattern for tensor in tensors}
    if set(texts.values()) <= {specification.options.pattern}:
        return tensors
    return [tensor.model_copy(update={"pattern": texts[tensor.name]}) for tensor in tensors]


def _locate(
    name: str,
    file: Mapping[str, Any],
    entry: TensorEntry,
    layout: Layout | None,
    specification: JobSpecification,
) -> PlannedTensor:
    tensor = PlannedTensor(name=name, **file, dtype=entry.dtype, shape=list(entry.shape), start=entry.start)
    if layout is None:
        return tensor
    if layout.is_plain(specification.fitting_pattern, entry.shape):
        return tensor.model_copy(update={"rule": layout.rule})
    parts = list(layout.out_parts) if len(layout.row_ranges(specification.fitting_pattern, entry.shape)) > 1 else []
    if specification.budget is not None:
        detail = (
            f"tensor {name!r}: a budget does not go with its layout {str(layout)!r}; exclude it, or use the library"
        )
        raise RequestError(Code.INVALID_BUDGET, detail, tensor=name)
    return tensor.model_copy(update={"axes": str(layout), "out_parts": parts, "rule": layout.rule})
