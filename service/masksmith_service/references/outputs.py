"""Plans a job's output, claims its directory before the job is queued, and reads the record of a finished output."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import PurePosixPath

import redis
from redis.exceptions import LockError
from redis.lock import Lock

from masksmith_service.auth.principal import Principal
from masksmith_service.errors import RequestError
from masksmith_service.resources import State
from masksmith_state.errors import ChangedSourceError, InvalidLocationError
from masksmith_state.expiry import limit_expiry
from masksmith_state.jobs.output_identity import MAX_MARKER_BYTES, MAX_RECORD_BYTES, marker_identity, record_identity
from masksmith_state.jobs.outputs import NOTE_PREFIX, OutputFile, PlannedOutput
from masksmith_state.jobs.redis_keys import output_lock_key
from masksmith_state.jobs.shards import PlannedTensor, Source
from masksmith_state.roots.bucket import MAX_OBJECT_BYTES
from masksmith_state.roots.directory import is_part_name
from masksmith_state.roots.location import is_inside
from masksmith_wire.digests import digest_document
from masksmith_wire.documents import OutputInput
from masksmith_wire.errors import Code
from masksmith_wire.locations import is_in_bucket
from masksmith_wire.output_names import JOURNAL_NAME, OWN_FILES, RECORD_NAME, is_weights_path
from masksmith_wire.specification import JobSpecification

from .access import LocatedPath, find_readable, find_writable
from .models import Model

RECORD_COPIES = 2
"""Copies of a record that are in memory while it is read or sent."""
MAX_NAME_BYTES = 255
"""Longest name of a file or a directory that file systems allow."""
MAX_COPIED_FILES = 1000
"""Maximum number of files of the model's directory that are not weights, and are copied into the output."""
READ_ATTEMPTS = 3
"""Attempts to read the marker or record of an output that others write at the same time."""
LOCK_TIMEOUT_S, LOCK_WAIT_S = 120, 5
"""Seconds after which the lock of an output expires, and for which a request waits for the lock."""


class OutputPlanner:
    """Plans the output of a job.

    Args:
        state: Resources of the application.
        principal: Who sent the request.
    """

    def __init__(self, state: State, principal: Principal) -> None:
        self._roots, self._settings, self._principal = state.roots, state.settings, principal

    def plan(
        self, output: OutputInput, model: Model, specification: JobSpecification, tensors: Sequence[PlannedTensor]
    ) -> PlannedOutput:
        """Plan an output.

        Args:
            output: The document's output, with its location.
            model: The model whose pruned copy the output becomes.
            specification: The job's specification.
            tensors: The job's tensors.

        Raises:
            RequestError: If the principal may not write to the directory; if the directory or the model is not suitable
                for an output; if a tensor does not belong to the model; or if the job has a time limit, because its
                masks then differ from run to run.
        """
        directory = find_writable(self._roots, self._principal, output.location)
        self._check_directory(directory, model)
        if specification.options.time_limit_s is not None:
            raise _invalid("a job with time_limit_s has no output: its masks are not the same each time", directory)
        _check_tensors(tensors, model, directory)
        files = [
            OutputFile(name=name, source=_source(model.folder.child(name), file_state.version), bytes=file_state.size)
            for name, (file_state, _) in model.files.items()
        ]
        copied_files, left_out = self._copied_files(model, directory)
        for file in (*files, *copied_files):
            self._check_name(directory, file.name)
        config = model.config or {}
        planned = PlannedOutput(
            location=directory.location,
            identity="",
            max_header_bytes=self._settings.max_header_bytes,
            max_tensors=self._settings.max_tensors,
            files=files,
            copied_files=copied_files,
            names_not_copied=left_out,
            model_type=str(config["model_type"]) if isinstance(config.get("model_type"), str) else None,
            duplicates=model.duplicates,
        )
        return planned.model_copy(update={"identity": _identity(planned, specification, tensors)})

    def _check_directory(self, directory: LocatedPath, model: Model) -> None:
        if not directory.path:
            raise _invalid("it is a root itself; name a directory inside it", directory)
        # If the model is a single file (`sizes` is empty), no other file of its directory is read, and the output may
        # be below this directory.
        would_be_in_model = bool(model.sizes) and is_inside(directory.location, model.folder.location)
        if would_be_in_model or is_inside(model.folder.location, directory.location):
            raise _invalid(f"it overlaps with the model in {model.folder.location}; name another directory", directory)
        large_file = next(
            (name for name, (file_state, _) in model.files.items() if file_state.size > MAX_OBJECT_BYTES), None
        )
        if large_file is not None and is_in_bucket(directory.location):
            detail = f"{large_file!r} has more than the {MAX_OBJECT_BYTES} bytes of an object; split the model"
            raise _invalid(detail, directory)
        reserved_name = next((name for name in model.files if name in OWN_FILES), None)
        if reserved_name is not None:
            raise _invalid(f"the model has a file {reserved_name!r}, whose name the output needs", directory)
        if "quantization_config" in (model.config or {}):
            detail = "the model's config has a quantization_config, and quantised weights are not read by reference"
            raise _invalid(f"{detail}; use `masksmith prune --local`", directory)

    def _check_name(self, directory: LocatedPath, name: str) -> None:
        """Refuse a file of the output if its name is too long, or its location is in a root inside the directory.

        Other keys may have access to that root.
        """
        longest = max(len(part.encode()) for part in name.split("/"))
        if longest > MAX_NAME_BYTES and not is_in_bucket(directory.location):
            detail = f"its file {name[:80]!r}... would have a name of {longest} bytes, and a directory allows"
            raise _invalid(
                f"{detail} {MAX_NAME_BYTES}; rename it in the model, or name an output in a bucket", directory
            )
        root = self._roots.find(f"{directory.location}/{name}")[1]
        if root.url != directory.root.url:
            raise _invalid(f"its file {name!r} would be in {root.url}, which is another root", directory)

    def _copied_files(self, model: Model, directory: LocatedPath) -> tuple[list[OutputFile], list[str]]:
        """Return the files beside the weights: those to copy, the index last, and the names of those not to copy.

        Hidden files, and files with irregular paths, are in neither list.
        """
        names = [name for name in model.sizes if name not in model.files and not _is_hidden_or_irregular(name)]
        left_out = [name for name in names if name != model.index and (name in OWN_FILES or is_weights_path(name))]
        # The index is last because a loader assumes that a directory with an index holds a complete model.
        copied = sorted((name for name in names if name not in left_out), key=lambda name: name == model.index)
        if len(copied) > MAX_COPIED_FILES:
            raise _invalid(
                f"{len(copied)} files are beside the model's weights, at most {MAX_COPIED_FILES} are copied", directory
            )
        files = []
        for name in copied:
            source = model.folder.child(name)
            file_state = source.stat()
            files.append(OutputFile(name=name, source=_source(source, file_state.version), bytes=file_state.size))
        return files, left_out


@contextmanager
def claim_output(
    state: State, principal: Principal, output: PlannedOutput | None, reserve_memory: Callable[[int], None]
) -> Iterator[None]:
    """Claim the directory of a job's output, if it has one; within the context, the job is created.

    The marker of an unfinished output is written, unless the directory holds the same output already. If creating the
    job fails, a marker that this request has written is deleted, unless the job may exist or another request may rely
    on the marker. The lock of the output is held within the context.

    Raises:
        RequestError: If the principal may not write to the directory; if the directory has other content, such as
            another job's output; or if other requests hold the lock for too long.
    """
    if output is None:
        yield
        return
    directory = find_writable(state.roots, principal, output.location)
    with _locked(state, directory) as lock:
        is_new = _claim(directory, output, reserve_memory)
        try:
            yield
        except redis.RedisError:
            # The marker stays: the job may have been recorded although the broker's response was lost.
            raise
        except BaseException:
            # After the lock has expired, another request may rely on the marker. If the marker stays, a later
            # request for the same output continues with it.
            if is_new and lock.owned():
                directory.root.delete(directory.child(JOURNAL_NAME).path)
            raise


@contextmanager
def _locked(state: State, directory: LocatedPath) -> Iterator[Lock]:
    """Hold the lock of an output: requests of all services for this output use the same lock."""
    name = output_lock_key(directory.location)
    limit_expiry(state.records.redis, [name], LOCK_TIMEOUT_S)
    lock = state.records.redis.lock(name, timeout=LOCK_TIMEOUT_S, blocking_timeout=LOCK_WAIT_S, sleep=0.05)
    if not lock.acquire():
        detail = f"other requests for the output {directory.location!r} are being planned; try again"
        raise RequestError(Code.OVERLOADED, detail, retry_after_s=LOCK_WAIT_S, location=directory.location)
    try:
        yield lock
    finally:
        # It is an error to release a lock that has expired.
        with suppress(LockError):
            lock.release()


def read_record(
    state: State, principal: Principal, output: PlannedOutput, reserve_memory: Callable[[int], None]
) -> bytes:
    """Read the record of a finished output, a JSON object; it is not parsed, because it may be large.

    Args:
        state: Resources of the application.
        principal: Who sent the request.
        output: The output.
        reserve_memory: Reserves a number of bytes of memory for the request.

    Raises:
        RequestError: If the principal may not read the output; if the output is unfinished; if its record is not a JSON
            object; or if it is the record of another output, which has replaced this one.
        InvalidLocationError: If the record has more than `MAX_RECORD_BYTES`.
    """
    location = output.location
    directory = find_readable(state.roots, principal, location)
    size_by_name = directory.root.list(directory.path)
    if JOURNAL_NAME in size_by_name or RECORD_NAME not in size_by_name:
        detail = f"{location!r} is unfinished; submit the same job again to go on"
        raise RequestError(Code.RESULT_NOT_FOUND, detail, location=location)
    record = directory.child(RECORD_NAME)
    data = _get_record(record, reserve_memory)
    if not data.lstrip().startswith(b"{"):
        raise RequestError(Code.RESULT_NOT_FOUND, f"{record.location!r} is not a record", location=location)
    if record_identity(data) != output.identity:
        detail = f"{location!r} now has the output of another job or command; submit the job with another output"
        raise RequestError(Code.RESULT_NOT_FOUND, detail, location=location)
    return data


def _get_record(record: LocatedPath, reserve_memory: Callable[[int], None]) -> bytes:
    """Reserve memory for a record, and read it; raises as `Root.get` does."""
    return record.root.get(record.path, MAX_RECORD_BYTES, lambda size: reserve_memory(RECORD_COPIES * size))


def _claim(directory: LocatedPath, output: PlannedOutput, reserve_memory: Callable[[int], None]) -> bool:
    """Write the marker, unless the directory holds this output already; return whether the marker was written.

    Commands and other installations do not use the lock. So the directory is checked again after the claim: what they
    wrote since the first check is found now, and what they begin to write later finds the marker.

    Raises:
        RequestError: If the directory has other content, or is written to by others at the same time.
        InvalidLocationError: If the marker cannot be written.
    """
    if _check_content(directory, output, reserve_memory):
        return False
    marker = directory.child(JOURNAL_NAME)
    marker.root.check_writable(marker.path)
    _check_places(directory, output)
    lines = [{"identity": output.identity}, {"by": "service"}]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    if not directory.root.create(marker.path, data):
        _check_content(directory, output, reserve_memory)
        return False
    if other_names := _list(directory).keys() - {JOURNAL_NAME}:
        directory.root.delete(marker.path)
        raise _not_empty_error(directory, sorted(other_names))
    return True


def _check_places(directory: LocatedPath, output: PlannedOutput) -> None:
    """Refuse an output if the path of a file that the job writes is a directory, or leads through a link.

    Empty directories and links to directories are not listed. The job would fail when it writes its first file, after
    all of its tensors have been solved.
    """
    for location in output.written_locations:
        try:
            directory.root.check_writable(location.removeprefix(f"{directory.root.url}/"))
        except InvalidLocationError as error:
            detail = f"{error}; remove it, or name a new or empty directory"
            raise RequestError(Code.OUTPUT_NOT_EMPTY, detail, location=directory.location) from None


def _list(directory: LocatedPath) -> dict[str, int]:
    """Sizes of the files in a directory, by name, without part files, which a killed writer may have left."""
    sizes = directory.root.list(directory.path)
    return {name: size for name, size in sizes.items() if not is_part_name(name)}


def _check_content(directory: LocatedPath, output: PlannedOutput, reserve_memory: Callable[[int], None]) -> bool:
    """Whether a directory holds this output; False if the directory is empty.

    Raises:
        RequestError: If it has other content; or if its marker or record was deleted or replaced at each attempt to
            read it.
    """
    for _ in range(READ_ATTEMPTS):
        size_by_name = _list(directory)
        # The marker may be deleted at any time: by a worker that finishes the output, or by a command.
        with suppress(FileNotFoundError, ChangedSourceError):
            if size_by_name and _identity_of(directory, size_by_name, reserve_memory) != output.identity:
                raise _not_empty_error(directory, list(size_by_name))
            return bool(size_by_name)
    detail = f"{directory.location!r} is being written at the moment; try again"
    raise RequestError(Code.OVERLOADED, detail, retry_after_s=LOCK_WAIT_S, location=directory.location)


def _not_empty_error(directory: LocatedPath, names: list[str]) -> RequestError:
    """Return the error for a directory that holds files of others; `names` are its files."""
    first = next((name for name in names if name not in OWN_FILES and not name.startswith(NOTE_PREFIX)), min(names))
    if JOURNAL_NAME in names or RECORD_NAME in names:
        content = "the output of another job or command, another masksmith version, or another state of the model"
    else:
        content = f"other files, such as {first!r}"
    detail = f"{directory.location!r} contains {content}; name a new or empty directory"
    return RequestError(Code.OUTPUT_NOT_EMPTY, detail, location=directory.location)


def _identity_of(directory: LocatedPath, size_by_name: dict[str, int], reserve_memory: Callable[[int], None]) -> object:
    """Return the identity of the output in a directory, unfinished or finished; None if there is no output of a job.

    A marker or record above its maximum size was not written by a job: it belongs to the output of a command. A record
    is searched for its identity and not parsed, because it may be large.

    Raises:
        FileNotFoundError, ChangedSourceError: If marker or record was deleted or replaced meanwhile.
    """
    if JOURNAL_NAME in size_by_name:
        if size_by_name[JOURNAL_NAME] > MAX_MARKER_BYTES:
            return None
        return marker_identity(directory.root.get(directory.child(JOURNAL_NAME).path, MAX_MARKER_BYTES))
    if RECORD_NAME in size_by_name and size_by_name[RECORD_NAME] <= MAX_RECORD_BYTES:
        return record_identity(_get_record(directory.child(RECORD_NAME), reserve_memory))
    return None


def _check_tensors(tensors: Sequence[PlannedTensor], model: Model, directory: LocatedPath) -> None:
    """Check that each tensor of the job is read from the model, at the place of the model's tensor of that name."""
    for tensor in tensors:
        file = model.weight_map.get(tensor.name)
        entry = None if file is None else model.files[file][1].tensors[tensor.name]
        location = None if file is None else model.folder.child(file).location
        source_location = None if tensor.source is None else tensor.source.location
        if entry is None or (source_location, tensor.start) != (location, entry.start):
            detail = (
                f"tensor {tensor.name!r} is not read from {model.folder.location}, the model that the output copies"
            )
            raise _invalid(detail, directory)


def _source(file: LocatedPath, file_version: str) -> Source:
    return Source(location=file.location, version=file_version)


def _identity(output: PlannedOutput, specification: JobSpecification, tensors: Sequence[PlannedTensor]) -> str:
    """Return a digest of everything that determines the output's content."""
    # `duplicates` and `previous` are left out of the digest if they are empty.
    previous = {part.source.version for tensor in tensors for part in tensor.previous or () if part.source is not None}
    excluded = {"location", "identity", "max_header_bytes", "max_tensors"}
    if not output.duplicates:
        excluded.add("duplicates")
    return digest_document(
        ({"previous": sorted(previous)} if previous else {})
        | {
            "version": version("masksmith"),
            "output": output.model_dump(exclude=excluded),
            "options": specification.options.model_dump(mode="json"),
            "tensors": [[tensor.name, tensor.pattern, tensor.inputs] for tensor in tensors],
        }
    )


def _is_hidden_or_irregular(name: str) -> bool:
    """Whether a path has a part that begins with a dot, `..` included, or is not written as usual, such as `a//b`."""
    path = PurePosixPath(name)
    return any(part.startswith(".") for part in path.parts) or path.as_posix() != name


def _invalid(reason: str, directory: LocatedPath) -> RequestError:
    return RequestError(Code.INVALID_OUTPUT, f"output {directory.location!r}: {reason}", location=directory.location)
