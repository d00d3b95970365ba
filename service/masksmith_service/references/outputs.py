"""Plans a job's output, and claims its directory: what holds something else is refused before anything is queued."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import Any

import redis
from redis.exceptions import LockError
from redis.lock import Lock

from masksmith_service.auth.principal import Principal
from masksmith_service.errors import RequestError
from masksmith_service.resources import State
from masksmith_state.jobs.outputs import NOTE_PREFIX, OutputFile, PlannedOutput
from masksmith_state.jobs.redis_keys import output_lock_key
from masksmith_state.jobs.shards import PlannedTensor, Source
from masksmith_state.roots.bucket import MAX_OBJECT_BYTES
from masksmith_state.roots.location import is_inside
from masksmith_wire.digests import digest_document
from masksmith_wire.documents import OutputInput
from masksmith_wire.errors import Code
from masksmith_wire.locations import is_in_bucket
from masksmith_wire.output_names import JOURNAL_NAME, OWN_FILES, RECORD_NAME, holds_weights
from masksmith_wire.specification import JobSpecification

from .access import LocatedPath, find_readable, find_writable, reference_not_found
from .models import Model

MAX_MARKER_BYTES = 2**16
MAX_RECORD_BYTES = 2**28
MAX_BESIDE = 1000
"""Files beside a model's weights that are copied."""
TURN_S, TURN_WAIT_S = 120, 5
"""Seconds that a request may hold the lock of an output, and that another one waits for it."""


class OutputPlanner:
    """Plans the output of a job.

    Args:
        state: Resources of the application.
        principal: Who sent the request.
    """

    def __init__(self, state: State, principal: Principal) -> None:
        self._roots, self._principal = state.roots, principal

    def plan(
        self, output: OutputInput, model: Model, specification: JobSpecification, tensors: Sequence[PlannedTensor]
    ) -> PlannedOutput:
        """Plan an output.

        Args:
            output: Where it is written.
            model: The model that it is a copy of.
            specification: The job's specification.
            tensors: The job's tensors.

        Raises:
            RequestError: If the principal may not write there, the job's tensors are not of the model, or its options
                give masks that are not the same every time.
        """
        place = find_writable(self._roots, self._principal, output.location)
        self._check_places(place, model)
        if specification.options.time_limit_s is not None:
            raise _invalid("a job with time_limit_s has no output: its masks are not the same each time", place)
        _check_tensors(tensors, model, place)
        files = [
            OutputFile(name=name, source=_source(model.folder.child(name), state.version), bytes=state.size)
            for name, (state, _) in model.files.items()
        ]
        beside, left = self._beside(model, place)
        config = model.config or {}
        planned = PlannedOutput(
            location=place.location,
            identity="",
            files=files,
            beside=beside,
            left=left,
            model_type=str(config["model_type"]) if isinstance(config.get("model_type"), str) else None,
            duplicates=model.duplicates,
        )
        return planned.model_copy(update={"identity": _identity(planned, specification, tensors)})

    def _check_places(self, place: LocatedPath, model: Model) -> None:
        if not place.path:
            raise _invalid("it is a root itself; name a directory inside it", place)
        # Beside a model that is a single file nothing is read, so its directory may contain the output.
        is_in_model = bool(model.sizes) and is_inside(place.location, model.folder.location)
        if is_in_model or is_inside(model.folder.location, place.location):
            raise _invalid(f"it and {model.folder.location}, the model, contain each other; name another", place)
        large = next((name for name, (state, _) in model.files.items() if state.size > MAX_OBJECT_BYTES), None)
        if large is not None and is_in_bucket(place.location):
            raise _invalid(f"{large!r} has more than the {MAX_OBJECT_BYTES} bytes of an object; split the model", place)
        reserved = next((name for name in model.files if name in OWN_FILES), None)
        if reserved is not None:
            raise _invalid(f"the model has a file {reserved!r}, whose name the output needs", place)
        if "quantization_config" in (model.config or {}):
            detail = "the model's config says that its numbers are quantised, and not its weights; use --local"
            raise _invalid(detail, place)

    def _beside(self, model: Model, place: LocatedPath) -> tuple[list[OutputFile], list[str]]:
        """Files that are copied, the index last, and the names of those that are not."""
        names = [name for name in model.sizes if name not in model.files and not _is_hidden(name)]
        left = [name for name in names if name != model.index and (name in OWN_FILES or holds_weights(name))]
        # The index last: with it, a loader takes the directory for a model.
        copied = sorted((name for name in names if name not in left), key=lambda name: name == model.index)
        if len(copied) > MAX_BESIDE:
            raise _invalid(
                f"{len(copied)} files are beside the model's weights, at most {MAX_BESIDE} are copied", place
            )
        files = []
        for name in copied:
            source = model.folder.child(name)
            state = source.stat()
            files.append(OutputFile(name=name, source=_source(source, state.version), bytes=state.size))
        return files, left


@contextmanager
def claimed(state: State, principal: Principal, output: PlannedOutput | None) -> Iterator[None]:
    """Mark an output as unfinished and ours; if an error prevents the job, a new mark is removed.

    Requests for one output take turns until their jobs are recorded: none removes a mark that another relies on.

    Raises:
        RequestError: If the directory holds something else, or what another job has begun or finished; or if other
            requests for it take too long.
    """
    if output is None:
        yield
        return
    place = find_writable(state.roots, principal, output.location)
    with _turn(state, place) as turn:
        is_new = _claim(place, output)
        try:
            yield
        except redis.RedisError:
            # The job may have been recorded although no answer came.
            raise
        except BaseException:
            # Without the turn, another request may rely on the mark; what stays is taken by the same request.
            if is_new and turn.owned():
                place.root.delete(place.child(JOURNAL_NAME).path)
            raise


@contextmanager
def _turn(state: State, place: LocatedPath) -> Iterator[Lock]:
    """Hold the lock of an output among all services."""
    name = output_lock_key(place.location)
    lock = state.records.redis.lock(name, timeout=TURN_S, blocking_timeout=TURN_WAIT_S, sleep=0.05)
    if not lock.acquire():
        detail = f"other requests for the output {place.location!r} are being planned; try again"
        raise RequestError(Code.OVERLOADED, detail, retry_after_s=TURN_WAIT_S, location=place.location)
    try:
        yield lock
    finally:
        # If it has lapsed, the next request has had its turn.
        with suppress(LockError):
            lock.release()


def read_record(state: State, principal: Principal, location: str) -> dict[str, Any]:
    """Read the record of a finished output.

    Raises:
        RequestError: If it is unfinished, or the principal may not read it.
    """
    place = find_readable(state.roots, principal, location)
    names = place.root.list(place.path)
    if JOURNAL_NAME in names or RECORD_NAME not in names:
        detail = f"{location!r} is unfinished; submit the same job again to go on"
        raise RequestError(Code.RESULT_NOT_FOUND, detail, location=location)
    return dict(_document(place.child(RECORD_NAME), MAX_RECORD_BYTES))


def _claim(place: LocatedPath, output: PlannedOutput) -> bool:
    """Make the marker, unless the directory is this output already; returns whether it was made."""
    names = place.root.list(place.path)
    if names and _identity_of(place, names) != output.identity:
        first = next((name for name in names if name not in OWN_FILES and not name.startswith(NOTE_PREFIX)), "")
        what = f"something else ({first})" if JOURNAL_NAME not in names and RECORD_NAME not in names else None
        what = what or "what another command, another version or another state of the model has begun or finished"
        detail = f"{place.location!r} holds {what}; name a new or empty directory"
        raise RequestError(Code.OUTPUT_NOT_EMPTY, detail, location=place.location)
    if names:
        return False
    lines = [{"identity": output.identity}, {"by": "service"}]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return place.root.create(place.child(JOURNAL_NAME).path, data)


def _identity_of(place: LocatedPath, names: dict[str, int]) -> Any:
    """Identity of an unfinished or finished output; None if the directory is neither."""
    if JOURNAL_NAME in names:
        return _document(place.child(JOURNAL_NAME), MAX_MARKER_BYTES).get("identity")
    if RECORD_NAME in names:
        return _document(place.child(RECORD_NAME), MAX_RECORD_BYTES).get("identity")
    return None


def _document(file: LocatedPath, limit: int) -> dict[str, Any]:
    """First JSON object of a file; empty if it is none."""
    try:
        text = file.root.get(file.path, limit).decode(errors="replace")
        document = json.JSONDecoder().raw_decode(text)[0]
    except FileNotFoundError:
        raise reference_not_found(file.location) from None
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _check_tensors(tensors: Sequence[PlannedTensor], model: Model, place: LocatedPath) -> None:
    """Check that each tensor of the job is that of its name in the model."""
    for tensor in tensors:
        file = model.weight_map.get(tensor.name)
        entry = None if file is None else model.files[file][1].tensors[tensor.name]
        location = None if file is None else model.folder.child(file).location
        source_location = None if tensor.source is None else tensor.source.location
        if entry is None or (source_location, tensor.start) != (location, entry.start):
            detail = f"tensor {tensor.name!r} is not that of {model.folder.location}, whose copy is the output"
            raise _invalid(detail, place)


def _source(file: LocatedPath, state_version: str) -> Source:
    return Source(location=file.location, version=state_version)


def _identity(output: PlannedOutput, specification: JobSpecification, tensors: Sequence[PlannedTensor]) -> str:
    masks = {part.source.version for tensor in tensors for part in tensor.previous or () if part.source is not None}
    excluded = {"location", "identity"} if output.duplicates else {"location", "identity", "duplicates"}
    return digest_document(
        ({"previous": sorted(masks)} if masks else {})
        | {
            "version": version("masksmith"),
            "output": output.model_dump(exclude=excluded),
            "options": specification.options.model_dump(mode="json"),
            "tensors": [[tensor.name, tensor.pattern, tensor.inputs] for tensor in tensors],
        }
    )


def _is_hidden(name: str) -> bool:
    path = PurePosixPath(name)
    return any(part.startswith(".") for part in path.parts) or ".." in path.parts or path.as_posix() != name


def _invalid(reason: str, place: LocatedPath) -> RequestError:
    return RequestError(Code.INVALID_OUTPUT, f"output {place.location!r}: {reason}", location=place.location)
