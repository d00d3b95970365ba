"""Checks of a downloaded file of results against the job: names, shapes, dtypes, and the pattern of each mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from masksmith.layouts import FLOAT_DTYPES, default_axes
from masksmith.patterns import PatternError, parse
from masksmith_client._errors import WireError
from masksmith_client.submission.expected_tensor import ExpectedTensor
from masksmith_wire.documents import Job as JobDocument, JobState
from masksmith_wire.headers import Header, TensorEntry
from masksmith_wire.masks import MaskInfo, packed_width


def expected_tensors(document: JobDocument, requested: Mapping[str, ExpectedTensor]) -> dict[str, ExpectedTensor]:
    """Return the tensors that a job's file of results must hold: those that were solved, by name.

    Args:
        document: The job, which has ended.
        requested: The tensors that this client has requested; empty for a job of another process; then
            nothing is compared with a request.

    Raises:
        WireError: If the job has a tensor that was not requested, or was requested with another shape; if a requested
            tensor is neither in the job nor skipped; or if some requested tensor was not skipped, and the job has
            succeeded without a solved tensor.
    """
    expected = {}
    for report in document.tensors:
        requested_tensor = requested.get(report.name)
        if requested and (requested_tensor is None or requested_tensor.shape != tuple(report.shape)):
            raise WireError(f"job {document.id} has a tensor {report.name!r} of shape {report.shape}: not as requested")
        if report.state is JobState.SUCCEEDED:
            expected[report.name] = requested_tensor or ExpectedTensor(tuple(report.shape), report.pattern)
    skipped = {tensor.name for tensor in document.skipped}
    missing = sorted(set(requested) - {report.name for report in document.tensors} - skipped)
    if missing:
        raise WireError(f"job {document.id} lacks the tensor {missing[0]!r} that was requested")
    if not expected and requested and document.state is JobState.SUCCEEDED and not set(requested) <= skipped:
        raise WireError(f"job {document.id} has succeeded without any tensor")
    return expected


def check_names(header: Header, expected: Iterable[str], contents: str) -> None:
    """Check that a file holds exactly the tensors that are expected; `contents` is what messages call these tensors.

    Raises:
        WireError: If it does not.
    """
    expected_names = set(expected)
    if set(header.tensors) != expected_names:
        name = sorted(expected_names ^ set(header.tensors))[0]
        problem = "missing" if name in expected_names else "extra"
        raise WireError(f"the {contents} are not those of the job: {name!r} is {problem}")


def check_mask(entry: TensorEntry, info: MaskInfo | None, expected: ExpectedTensor) -> None:
    """Check shape, dtype, pattern and axes of a mask, as the header of its file states them.

    Raises:
        WireError: If one of them is not as expected.
    """
    name, shape = entry.name, expected.shape
    if info is None or tuple(info.shape) != shape:
        mask_shape = None if info is None else info.shape
        raise WireError(f"the mask of {name!r} has the shape {mask_shape}, and the weight {list(shape)}")
    if entry.dtype != "U8" or not shape or entry.shape != (*shape[:-1], packed_width(shape)):
        raise WireError(
            f"the mask of {name!r} is {entry.dtype} {list(entry.shape)}, which is not {list(shape)} packed into bits"
        )
    if expected.pattern is not None and info.pattern != expected.pattern:
        raise WireError(f"the mask of {name!r} is for {info.pattern!r}, and {expected.pattern!r} was requested")
    stated = {"axis": info.axis, "ragged": info.ragged, "axes": info.axes or " ".join(default_axes(shape))}
    for option, value in stated.items():
        requested = getattr(expected, option)
        if requested is not None and value != requested:
            raise WireError(f"the mask of {name!r} has the {option} {value!r}, and {requested!r} was requested")


def pattern_violation(mask: Any, info: MaskInfo) -> str | None:
    """Say how a mask violates its pattern, or why it cannot be checked; None if it satisfies the pattern."""
    import masksmith

    try:
        pattern = parse(info.pattern, axis=info.axis, ragged=info.ragged)  # type: ignore[arg-type]
        verdict = masksmith.verify(mask, pattern, layout=info.layout)
    except (PatternError, ValueError) as error:
        return str(error)
    return None if verdict.ok else str(verdict.message)


def check_weight(entry: TensorEntry, expected: ExpectedTensor) -> None:
    """Check shape and dtype of an updated weight, as the header of its file states them.

    Raises:
        WireError: If it has another shape or dtype than the weight, if it has no dimension or no entry, or if its dtype
            cannot hold updated weights.
    """
    if entry.shape != expected.shape or not expected.shape or 0 in expected.shape:
        raise WireError(
            f"the updated weight of {entry.name!r} has the shape {list(entry.shape)}, expected {list(expected.shape)}"
        )
    dtypes = sorted(FLOAT_DTYPES) if expected.dtype is None else [expected.dtype]
    if entry.dtype not in dtypes:
        raise WireError(
            f"the updated weight of {entry.name!r} has the dtype {entry.dtype}, expected {' or '.join(dtypes)}"
        )
