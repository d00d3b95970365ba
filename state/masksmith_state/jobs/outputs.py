"""The output of a job: a copy of a model in a root. Workers write its files, with zeros where masks drop weights."""

from __future__ import annotations

from pydantic import BaseModel

from masksmith_wire.digests import digest_bytes
from masksmith_wire.headers import FORMAT_MAX_HEADER_BYTES
from masksmith_wire.output_names import JOURNAL_NAME, MASKS_NAME, RECORD_NAME

from .shards import Source

NOTE_PREFIX = ".masksmith-done."
"""Prefix of the names of notes; in an unfinished output, each complete file of weights has a note."""
MAX_NOTED_BYTES = 200
"""The name of a file's note contains the file's name; its digest instead, if the name has more bytes than this.

File systems allow names of 255 bytes.
"""


class OutputFile(BaseModel):
    """A file of the model, and the source that it is read from; `name` is relative to the model's directory."""

    name: str
    source: Source
    bytes: int


class PlannedOutput(BaseModel):
    """A job's output.

    Attributes:
        location: Directory of the output.
        identity: Digest of everything that determines the output: files of the model, tensors, patterns,
            options, previous masks and masksmith's version; not the location.
        files: Files of weights.
        copied_files: Other files of the model's directory, which are copied unchanged; the index, if there is one, is
            last.
        names_not_copied: Names of files that are not copied: weights that are not among `files`, such as the same model
            in another format, and files that have the name of a file that masksmith adds to the output. Hidden files
            are neither copied nor named here.
        model_type: `model_type` of the model's config; None if it has none.
        duplicates: By file, the tensors in it that the index assigns to another file, each with that other file's name.
        max_header_bytes: Limit of the length of the header of a file of weights, when the job was planned.
        max_tensors: Limit of the number of tensors of a file of weights, when the job was planned; None in jobs of
            earlier versions.
    """

    location: str
    identity: str
    files: list[OutputFile]
    copied_files: list[OutputFile] = []
    names_not_copied: list[str] = []
    model_type: str | None = None
    duplicates: dict[str, dict[str, str]] = {}
    max_header_bytes: int = FORMAT_MAX_HEADER_BYTES
    max_tensors: int | None = None

    def location_of(self, name: str) -> str:
        """Location of a file of the output."""
        return f"{self.location}/{name}"

    @property
    def marker_location(self) -> str:
        """Location of the journal, whose presence marks the output as unfinished."""
        return self.location_of(JOURNAL_NAME)

    def note_location(self, name: str) -> str:
        """Location of the note on a complete file of weights; it contains the file's name, or a long name's digest."""
        is_long = len(name.encode()) > MAX_NOTED_BYTES
        return self.location_of(f"{NOTE_PREFIX}{digest_bytes(name.encode()) if is_long else name}.json")

    @property
    def written_locations(self) -> list[str]:
        """Locations of all files that the job writes, except the marker."""
        names = [*(file.name for file in (*self.files, *self.copied_files)), MASKS_NAME, RECORD_NAME]
        return [*map(self.location_of, names), *(self.note_location(file.name) for file in self.files)]


class FileNote(BaseModel):
    """A note on a complete file of weights.

    Attributes:
        bytes: Size of the file.
        blake3: Its BLAKE3 digest.
        job: The job that wrote or checked the file last.
        results: Digest of the masks and updated weights in the file (`OutputWork.results_digest`); empty if not known.
    """

    bytes: int
    blake3: str
    job: str = ""
    results: str = ""
