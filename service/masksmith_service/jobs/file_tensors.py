"""Selects the tensors of files that a job masks, and their statistics; also from headers, before the files are sent."""

from __future__ import annotations

import math
from collections.abc import Mapping

from masksmith_service.errors import RequestError
from masksmith_service.settings import Settings
from masksmith_service.uploads.header_checks import check_tensor_count, header_error, parse_untrusted
from masksmith_state.jobs.shards import PlannedTensor, Source
from masksmith_wire.documents import Skipped
from masksmith_wire.errors import Code
from masksmith_wire.headers import Header, HeaderError
from masksmith_wire.selections import SelectedTensors, SelectionRequest
from masksmith_wire.specification import JobSpecification

from .options import FileOptions, parse_file_options
from .planning import make_plan
from .selected_tensors import ModelFiles, locate_selected
from .statistics import add_statistics, check_calibrated_names

_CALIBRATION = "calibration"
"""Stands for the digest of a calibration file that has not been uploaded."""
_ONLY_UPLOADED = ("also", "calibration", "previous")
"""Options that name uploads or jobs, which a selection from headers does not take."""


def select_file_tensors(
    options: FileOptions,
    specification: JobSpecification,
    files: Mapping[str, Header],
    headers: Mapping[str, Header],
    sources: Mapping[str, Source],
    model: ModelFiles | None = None,
) -> tuple[list[PlannedTensor], list[Skipped]]:
    """Select the tensors that a job on files masks, and locate them and their statistics.

    Args:
        options: The options of the request.
        specification: The job's specification.
        files: Headers of the files by digest, or by reference for a model.
        headers: Headers of the other files that the job reads, by digest or reference.
        sources: The files in roots, by reference.
        model: The files of a model by reference; None for uploads.

    Returns:
        The tensors to mask, and the other ones with reasons, both in the order of the files.

    Raises:
        RequestError: As `check_calibrated_names`, `locate_selected` and `add_statistics` do.
    """
    names = model.file_of if model else [name for header in files.values() for name in header.tensors]
    if options.calibration is not None:
        check_calibrated_names(headers[options.calibration], names)
    planned_tensors, selection = locate_selected(options, specification, files, model)
    tensors, uncalibrated = add_statistics(
        planned_tensors, specification, headers, sources, document_tensors={}, required_names=selection.named
    )
    reasons = selection.skipped | {skip.name: skip.reason for skip in uncalibrated}
    return tensors, [Skipped(name=name, reason=reasons[name]) for name in names if name in reasons]


def select_from_headers(options: FileOptions, request: SelectionRequest, settings: Settings) -> SelectedTensors:
    """Say which tensors a job would mask, if its files had these headers.

    Args:
        options: The options of the job; the files that it reads are those of the request.
        request: The headers.
        settings: Bounds of headers and of the number of tensors.

    Raises:
        RequestError: If a header is invalid or beyond a bound, or the job would be refused for its options or tensors.
    """
    option = next((name for name in _ONLY_UPLOADED if getattr(options, name)), None)
    if option is not None:
        detail = f"{option} does not go with a selection from headers; put the headers of all files into the document"
        raise RequestError(Code.INVALID_DOCUMENT, detail)
    files = {f"file {number}": _parse(text, settings) for number, text in enumerate(request.headers, 1)}
    calibration = {} if request.calibration is None else {_CALIBRATION: _parse(request.calibration, settings)}
    check_tensor_count(sum(len(header.tensors) for header in files.values()), settings.max_tensors)
    options = options.model_copy(update={"calibration": _CALIBRATION if calibration else None})
    specification = parse_file_options(options)
    tensors, skipped = select_file_tensors(options, specification, files, calibration, {})
    make_plan(specification, tensors, skipped)  # Refuses a budget that cannot be met, and a job without tensors.
    entries = sum(math.prod(tensor.shape) for tensor in tensors)
    return SelectedTensors(masked=[tensor.name for tensor in tensors], entries=entries, skipped=skipped)


def _parse(text: str, settings: Settings) -> Header:
    limit = settings.max_header_bytes
    if len(text.encode()) > limit:
        raise RequestError(Code.HEADER_TOO_LARGE, f"a header has more than max_header_bytes = {limit}", limit=limit)
    try:
        return parse_untrusted(text.encode(), settings)
    except HeaderError as error:
        raise header_error(error) from None
