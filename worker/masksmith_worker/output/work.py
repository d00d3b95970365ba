"""What the writer of an output reads and writes: the job's plan, inputs and results, and the output's files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

from pydantic import ValidationError

from masksmith_state.errors import ChangedSourceError, InvalidLocationError
from masksmith_state.jobs.output_identity import MAX_MARKER_BYTES, MAX_RECORD_BYTES, marker_identity, record_identity
from masksmith_state.jobs.outputs import FileNote, OutputFile, PlannedOutput
from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.shards import Shard, Source, shards_by_tensor as group_by_tensor
from masksmith_state.roots.root import Root
from masksmith_wire.digests import digest_document
from masksmith_wire.errors import TensorError
from masksmith_wire.headers import Header, HeaderError, check_members, parse_header, read_header_text
from masksmith_wire.output_names import RECORD_NAME
from masksmith_worker.stages.load import InputReader

from .results import ShardResults

COPY_BYTES = 8 * 2**20
"""Bytes of a file that are in memory while it is copied."""
MAX_NOTE_BYTES = 2**12
"""Maximum size of a note on a complete file of weights."""


class ShardFailedError(Exception):
    """An output needs the result of a shard that failed.

    Attributes:
        error: The shard's error.
    """

    def __init__(self, error: TensorError) -> None:
        super().__init__(error.message)
        self.error = error


class ForeignOutputError(Exception):
    """The directory of an output no longer belongs to its job, or a complete file in it was changed."""


@dataclass(frozen=True)
class OutputWork:
    """An output, what it is made of, and access to its files.

    Attributes:
        job: Id of the job.
        plan: The job's plan.
        output: The output of the plan.
        inputs: Reads the model's files.
        shards: The job's shards, by index.
        results: Results of the job's shards.
        check: Called regularly; raises an error to stop the work.
    """

    job: str
    plan: MasksPlan
    output: PlannedOutput
    inputs: InputReader
    shards: Mapping[int, Shard]
    results: ShardResults
    check: Callable[[], None]

    @cached_property
    def shards_by_tensor(self) -> list[list[int]]:
        """Indices of each tensor's shards."""
        return group_by_tensor(self.plan.tensors, self.shards)

    @cached_property
    def tensor_numbers(self) -> dict[str, int]:
        """Numbers of the plan's tensors, by name."""
        return {tensor.name: number for number, tensor in enumerate(self.plan.tensors)}

    def header(self, file: OutputFile) -> Header:
        """Read the header of a file of the model's weights.

        Raises:
            ChangedSourceError: If the header is not as it was when the job was planned: it is invalid, or beyond the
                limits that it was checked against.
        """
        try:
            read = partial(self.inputs.source_bytes, file.source)
            text = read_header_text(read, file.bytes, self.output.max_header_bytes)
            if self.output.max_tensors is not None:
                check_members(text, self.output.max_tensors)
            return parse_header(text, file.bytes)
        except HeaderError as error:
            raise ChangedSourceError(file.source.location, str(error)) from None

    def read_pieces(self, source: Source, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes `start` to `stop` (exclusive) of a file, in pieces of `COPY_BYTES`."""
        for first in range(start, stop, COPY_BYTES):
            self.check()
            yield self.inputs.source_bytes(source, first, min(first + COPY_BYTES, stop))

    def read_output(self, name: str, size: int) -> Iterator[bytes]:
        """Yield the bytes of a file of the output, in pieces of `COPY_BYTES`.

        Raises:
            FileNotFoundError: If there is no such file.
            ChangedSourceError: If it changes while it is read.
        """
        location = self.output.location_of(name)
        _, root, path = self.inputs.roots.find(location)
        yield from self.read_pieces(Source(location=location, version=root.stat(path).version), 0, size)

    def note(self, name: str) -> FileNote:
        """Read the note on a file of weights.

        Raises:
            FileNotFoundError: If there is none.
            ForeignOutputError: If it is not as masksmith writes it.
        """
        location = self.output.note_location(name)
        _, root, path = self.inputs.roots.find(location)
        try:
            return FileNote.model_validate_json(root.get(path, MAX_NOTE_BYTES))
        except (InvalidLocationError, ValidationError):  # `get` raises `InvalidLocationError` if there are more bytes.
            raise ForeignOutputError(
                f"{location!r} is not as masksmith wrote it; delete it to have {name!r} written again, and submit the "
                "job again"
            ) from None

    def results_digest(self, file: OutputFile) -> str:
        """Digest of the digests of the masks and updated weights of a file's tensors, from the shards' reports.

        Raises:
            ShardFailedError: If one of the shards failed.
        """
        names = sorted(self.tensor_numbers.keys() & self.header(file).tensors.keys())
        numbers = [self.tensor_numbers[name] for name in names]
        reports = [self.results.report(index) for number in numbers for index in self.shards_by_tensor[number]]
        return digest_document({"results": [[report.mask_digest, report.weights_digest] for report in reports]})

    def write(self, location: str, pieces: Iterable[bytes | memoryview]) -> None:
        """Write a file of the output."""
        root, path = self._path(location)
        root.write(path, pieces)

    def delete(self, location: str) -> None:
        """Delete a file of the output, if it exists."""
        root, path = self._path(location)
        root.delete(path)

    def _path(self, location: str) -> tuple[Root, str]:
        """Return the root of the output, and the path of one of the output's files in it.

        Roots may be nested: the directory of another root, which may be for other API keys, can be inside the output.
        That root is never used: the file is accessed through the root of the output, which refuses paths in inner
        roots.
        """
        _, root, _ = self.inputs.roots.find(self.output.location)
        return root, location.removeprefix(f"{root.url}/")

    def file_sizes(self) -> dict[str, int]:
        """Sizes of the output's files, by path below its directory."""
        _, root, path = self.inputs.roots.find(self.output.location)
        return root.list(path)

    def has_marker(self) -> bool:
        """Whether the output's directory has the marker of this output."""
        data = self._content(self.output.marker_location, MAX_MARKER_BYTES)
        return data is not None and marker_identity(data) == self.output.identity

    def has_record(self) -> bool:
        """Whether the output's directory has the record of this output."""
        data = self._content(self.output.location_of(RECORD_NAME), MAX_RECORD_BYTES)
        return data is not None and record_identity(data) == self.output.identity

    def _content(self, location: str, limit: int) -> bytes | None:
        """Read a file; None if there is none, it has more than `limit` bytes, or it changes while it is read."""
        _, root, path = self.inputs.roots.find(location)
        try:
            return root.get(path, limit)
        except (FileNotFoundError, InvalidLocationError, ChangedSourceError):
            return None
