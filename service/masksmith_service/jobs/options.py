"""Parses the options of masks jobs.

Options are in a job document, or in the query of a job on an uploaded file or on a model in a root.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationError

from masksmith.patterns import PatternError, TensorPatterns
from masksmith_service.errors import RequestError
from masksmith_service.uploads.header_checks import check_tensor_count
from masksmith_wire.documents import Digest, MasksOptions, MasksRequest, Reference
from masksmith_wire.errors import Code
from masksmith_wire.names import MAX_LABELS, JobDescription, JobName, parse_labels
from masksmith_wire.priorities import Priority
from masksmith_wire.specification import JobSpecification, SpecificationError
from masksmith_wire.validation import reason as reason_of


class FileOptions(MasksOptions):
    """Options of a job on an uploaded file, and, as `ModelOptions`, of a job on a model in a root.

    `pattern` is a pattern for all tensors that have no other, or `SELECTOR=PATTERN`, such as `mlp=transposable 8:16`;
    `layers` and `exclude` are globs of tensor names, `layout` is `NAME=AXES`, such as `w1=stack in out`, `label` is
    `KEY=VALUE`, and `also` is the digest of another uploaded file, such as another shard of the checkpoint; each of
    these can be repeated.
    """

    # The limits of lengths below allow a selector or name of 512 characters with a pattern of 100 or axes of 60, and a
    # label of 63 characters before `=` and 100 after it.

    pattern: Annotated[  # type: ignore[assignment]  # A list here, one pattern in `MasksOptions`.
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
    """Options of a job that writes a pruned copy of a model; `model` and `output` are references, `also` is refused."""

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
        raise RequestError(error.code, str(error), **error.invalid_options) from None


def parse_patterns(options: FileOptions) -> TensorPatterns:
    """Parse the patterns of a job on a file or model.

    Raises:
        RequestError: If one is invalid.
    """
    try:
        return TensorPatterns.parse(options.pattern, options.axis, options.ragged)
    except PatternError as error:
        raise RequestError(Code.INVALID_PATTERN, str(error), pattern=", ".join(options.pattern)[:700]) from None


def parse_file_options(options: FileOptions) -> JobSpecification:
    """Parse the options of a job on a file or model.

    The job's pattern is the pattern without a selector, or the first pattern if all have selectors.

    Raises:
        RequestError: If they are invalid.
    """
    patterns = parse_patterns(options)
    members = {name: getattr(options, name) for name in MasksOptions.model_fields} | {"pattern": str(patterns.first)}
    specification = parse_specification(MasksOptions.model_construct(**members))
    try:
        # Only checks the patterns with a selector: whether the solver supports them, and that there is no budget.
        for pattern in patterns.rules.values():
            specification.with_own_pattern(str(pattern))
    except SpecificationError as error:
        raise RequestError(error.code, str(error), **error.invalid_options) from None
    return specification


def describe_file_job(options: FileOptions) -> JobDescription:
    """Parse the labels of a job on a file or model, and return them with its name and priority.

    Raises:
        RequestError: If a label is invalid.
    """
    try:
        return JobDescription(name=options.name, labels=parse_labels(options.label), priority=options.priority)
    except ValidationError as error:
        first_error = error.errors()[0]
        member = ".".join(str(part) for part in first_error["loc"])
        raise RequestError(Code.INVALID_DOCUMENT, f"{member}: {reason_of(first_error)}") from None
    except ValueError as error:
        raise RequestError(Code.INVALID_DOCUMENT, str(error)) from None


def parse_document_options(document: MasksRequest, max_tensors: int) -> JobSpecification:
    """Parse the options of a job document, and check the number of tensors.

    Raises:
        RequestError: If an option is invalid, or there are too many tensors.
    """
    specification = parse_specification(document)
    check_tensor_count(len(document.tensors), max_tensors)
    return specification
