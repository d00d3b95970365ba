"""Planning: a request becomes located tensors that fit the pattern, before anything is queued."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

from pydantic import Field

from masksmith.layouts import Candidate, Selection, SelectionError, binding, select
from masksmith.patterns import Budget, Pattern, PatternError, parse, solver_refusal, unshared
from masksmith_state.blobs.references import BlobReferences
from masksmith_state.blobs.store import BlobStore, upload_name
from masksmith_state.jobs.model import Plan
from masksmith_state.jobs.shards import PlannedTensor
from masksmith_wire.documents import MasksOptions, MasksRequest, Skipped, TensorInput
from masksmith_wire.errors import Code, RequestError
from masksmith_wire.headers import (
    LARGEST_HEADER_BYTES,
    PREFIX_BYTES,
    Header,
    HeaderError,
    TensorEntry,
    header_length,
    parse_header,
)
from masksmith_wire.updates import parse_update

from .previous_masks import MasksOf, previous_masks
from .statistics import Statistics


class FileOptions(MasksOptions):
    """Options of a one-shot upload: which of its tensors, and how; `layers` and `exclude` are globs and repeat."""

    layers: Annotated[list[Annotated[str, Field(max_length=512)]], Field(default_factory=list, max_length=1000)]
    exclude: Annotated[list[Annotated[str, Field(max_length=512)]], Field(default_factory=list, max_length=1000)]


def parse_pattern(options: MasksOptions) -> Pattern:
    """Read the pattern of a request.

    Raises:
        RequestError: If it is none, or the solver cannot solve it.
    """
    try:
        pattern = parse(options.pattern, axis=options.axis, ragged=options.ragged)
    except PatternError as error:
        raise RequestError(422, Code.INVALID_PATTERN, str(error), pattern=options.pattern) from None
    refusal = solver_refusal(pattern, options.solver)
    if refusal is not None:
        raise RequestError(422, Code.SOLVER_REFUSED, refusal, solver=options.solver, pattern=options.pattern)
    return pattern


def parse_budget(options: MasksOptions) -> Budget | None:
    """Read the budget of a request.

    Raises:
        RequestError: If it is none, or there are floors without one.
    """
    if options.budget is None and options.floors:
        raise _bad_budget(f"floor {options.floors[0]!r} without a budget; say what may be kept of all tensors", options)
    try:
        return None if options.budget is None else Budget.parse(options.budget, options.floors)
    except PatternError as error:
        raise _bad_budget(str(error), options) from None


def plan_request(request: MasksRequest, headers: Headers, max_tensors: int, masks_of: MasksOf) -> Plan:
    """Locate the tensors that a job document names; each of them must fit.

    Raises:
        RequestError: If the pattern is none, or a tensor is missing, named twice, not calibrated, or does not fit.
    """
    pattern = _fitting(request)
    if len(request.tensors) > max_tensors:
        detail = f"the job names {len(request.tensors)} tensors, max_tensors is {max_tensors}"
        raise RequestError(413, Code.TOO_MANY_TENSORS, detail, limit=max_tensors)
    entries = [_entry(wanted, headers) for wanted in request.tensors]
    names = [wanted.name for wanted in request.tensors]
    _select(names, entries, pattern, request, names, [])
    statistics, before = Statistics(request, headers.of), previous_masks(request.previous, headers.of, masks_of)
    planned = []
    for wanted, entry in zip(request.tensors, entries, strict=True):
        statistic = statistics.find(wanted.name, entry, wanted.statistic)
        gram = statistics.find_gram(wanted.name, entry, wanted.gram)
        _refuse_scores_as_weights(request, statistic, wanted.name)
        found = _locate(wanted.name, wanted.digest, entry)
        earlier = before.find(wanted.name, entry.shape)
        planned.append(found.model_copy(update={"statistic": statistic, "gram": gram, "previous": earlier}))
    before.check_found()
    _check_budget(request, planned)
    return Plan(options=_options(request), tensors=planned)


def plan_file(
    options: FileOptions,
    digest: str,
    header: Header,
    headers: Headers,
    masks_of: MasksOf,
) -> Plan:
    """Choose the tensors of one file: those that `layers` (globs) names, or else every float weight that fits.

    Raises:
        RequestError: If the pattern is none, a tensor named literally does not fit or is not calibrated, the
            calibration is another model's, or nothing is left.
    """
    pattern, entries = _fitting(options), header.tensors
    selection = _select(list(entries), list(entries.values()), pattern, options, options.layers, options.exclude)
    statistics = Statistics(options, headers.of)
    statistics.check_names(header.tensors)
    before = previous_masks(options.previous, headers.of, masks_of)
    planned, skipped = [], []
    for name, entry in entries.items():
        reason = selection.skipped.get(name)
        reason = reason or (None if name in selection.named else statistics.missing(name))
        if reason is None:
            statistic, gram = statistics.find(name, entry), statistics.find_gram(name, entry)
            _refuse_scores_as_weights(options, statistic, name)
            found, earlier = _locate(name, digest, entry), before.find(name, entry.shape)
            planned.append(found.model_copy(update={"statistic": statistic, "gram": gram, "previous": earlier}))
        else:
            skipped.append(Skipped(name=name, reason=reason))
    if not planned:
        raise _nothing_fits(len(entries), options.pattern, skipped)
    before.check_found()
    _check_budget(options, planned)
    return Plan(options=_options(options), tensors=planned, skipped=skipped)


def _entry(wanted: TensorInput, headers: Headers) -> TensorEntry:
    entry = headers.of(wanted.digest).tensors.get(wanted.key)
    if entry is None:
        detail = f"tensor {wanted.name!r}: upload {wanted.digest} holds no {wanted.key!r}"
        raise RequestError(422, Code.UNKNOWN_TENSOR, detail, tensor=wanted.name)
    return entry


def _select(
    names: list[str],
    entries: list[TensorEntry],
    pattern: Pattern,
    options: MasksOptions,
    layers: list[str],
    exclude: list[str],
) -> Selection:
    candidates = [Candidate(name, entry.shape, entry.dtype) for name, entry in zip(names, entries, strict=True)]
    try:
        return select(candidates, pattern, layers, exclude, bound=_bound(options, pattern))
    except SelectionError as error:
        raise _refusal(error, len(names), options.pattern) from None


def _refusal(error: SelectionError, count: int, pattern: str) -> RequestError:
    if error.kind == "nothing_left":
        skipped = [Skipped(name=name, reason=reason) for name, reason in error.skipped.items()]
        return _nothing_fits(count, pattern, skipped)
    if error.kind == "unsupported":
        detail = f"tensor {error.name!r}: {error.reason}"
        return RequestError(422, Code.TENSOR_DOES_NOT_FIT, detail, tensor=error.name)
    code = Code.UNKNOWN_TENSOR if error.kind == "unmatched" else Code.INVALID_DOCUMENT
    return RequestError(422, code, str(error), tensor=error.name)


def _nothing_fits(count: int, pattern: str, skipped: list[Skipped]) -> RequestError:
    detail = f"none of the file's {count} tensor(s) can be masked with {pattern!r}"
    return RequestError(422, Code.NO_TENSOR_FITS, detail, skipped=[skip.model_dump() for skip in skipped[:20]])


def _refuse_scores_as_weights(options: MasksOptions, statistic: PlannedTensor | None, name: str) -> None:
    if options.update is not None and options.scores == "given" and statistic is None:
        detail = f"tensor {name!r}: it holds scores, and an update wants weights; send the scores as the calibration"
        raise RequestError(422, Code.INVALID_CALIBRATION, detail, tensor=name)


def _locate(name: str, digest: str, entry: TensorEntry) -> PlannedTensor:
    return PlannedTensor(
        name=name,
        digest=digest,
        dtype=entry.dtype,
        shape=list(entry.shape),
        start=entry.start,
    )


def _bound(options: MasksOptions, pattern: Pattern) -> str | None:
    """Say what binds the whole of a tensor, if anything does."""
    update = None if options.update is None else parse_update(options.update)
    return binding(pattern, update, spectrum=options.spectrum)


def _fitting(options: MasksOptions) -> Pattern:
    """Give the pattern that tensors must fit: under a budget no share of one tensor rounds to nothing."""
    pattern = parse_pattern(options)
    return pattern if parse_budget(options) is None else unshared(pattern)


def _check_budget(options: MasksOptions, tensors: list[PlannedTensor]) -> None:
    budget = parse_budget(options)
    if budget is None:
        return
    try:
        budget.check({tensor.name: tuple(tensor.shape) for tensor in tensors}, parse_pattern(options))
    except PatternError as error:
        raise _bad_budget(str(error), options) from None


def _bad_budget(detail: str, options: MasksOptions) -> RequestError:
    return RequestError(422, Code.INVALID_BUDGET, detail, budget=options.budget, floors=options.floors)


def _options(options: MasksOptions) -> MasksOptions:
    canonical = str(parse_pattern(options))
    return MasksOptions(**{name: getattr(options, name) for name in MasksOptions.model_fields} | {"pattern": canonical})


class Headers:
    """Reads the headers of uploads, each once a request.

    Args:
        store: Where they are.
        references: Who has sent them.
        owner: Whose they must be.
        any_owner: Whether those of others will do.
    """

    def __init__(self, store: BlobStore, references: BlobReferences, owner: str, *, any_owner: bool) -> None:
        self._store, self._references, self._owner, self._any_owner = store, references, owner, any_owner
        self.of = lru_cache(maxsize=None)(self._read)

    def _read(self, digest: str) -> Header:
        if self._references.touch(self._owner, digest, any_owner=self._any_owner) is None:
            raise upload_missing(digest)
        name = upload_name(digest)
        try:
            length = header_length(self._store.get_range(name, 0, PREFIX_BYTES), LARGEST_HEADER_BYTES)
            return parse_header(self._store.get_range(name, PREFIX_BYTES, PREFIX_BYTES + length))
        except FileNotFoundError:
            raise upload_missing(digest) from None
        except HeaderError as error:
            # It was sound when it came.
            self._references.forget_upload(digest)
            detail = f"upload {digest} is damaged in the store ({error}) and was deleted; PUT it again"
            raise RequestError(409, Code.UPLOAD_DAMAGED, detail, digest=digest) from None


def upload_missing(digest: str) -> RequestError:
    """Say that an upload is not here, or not the key's."""
    detail = f"upload {digest} is not here; PUT /v1/tensors/{digest} first"
    return RequestError(409, Code.UPLOAD_NOT_FOUND, detail, digest=digest)
