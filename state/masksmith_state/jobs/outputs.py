"""The output of a job: a copy of a model in a root, whose files workers write with zeros where masks drop weights."""

from __future__ import annotations

from pydantic import BaseModel

from masksmith_wire.output_names import JOURNAL_NAME

from .shards import Source

NOTE_PREFIX = ".masksmith-done."
"""Prefix of the notes in an unfinished output; a complete file of weights has one."""


class OutputFile(BaseModel):
    """A file of the model, and where it is read from; `name` is relative to the model's directory."""

    name: str
    source: Source
    bytes: int


class PlannedOutput(BaseModel):
    """A job's output.

    Attributes:
        location: Its directory.
        identity: Digest of everything that determines it: files of the model, tensors, patterns and options.
        files: Files of weights.
        beside: Files of the directory that are copied unchanged, the index last.
        left: Names of files that are left out, because they hold weights that are not pruned.
        model_type: `model_type` of the model's config.
        duplicates: For tensors that a file repeats: the name of the file that the index names, by file and tensor.
    """

    location: str
    identity: str
    files: list[OutputFile]
    beside: list[OutputFile] = []
    left: list[str] = []
    model_type: str | None = None
    duplicates: dict[str, dict[str, str]] = {}

    def location_of(self, name: str) -> str:
        """Location of a file of the output."""
        return f"{self.location}/{name}"

    @property
    def marker(self) -> str:
        """Location of the file that marks the output as unfinished."""
        return self.location_of(JOURNAL_NAME)

    def note_location(self, name: str) -> str:
        """Location of the note on a complete file of weights."""
        return self.location_of(f"{NOTE_PREFIX}{name}.json")


class FileNote(BaseModel):
    """A note on a complete file of weights: its size and its BLAKE3 digest."""

    bytes: int
    blake3: str
