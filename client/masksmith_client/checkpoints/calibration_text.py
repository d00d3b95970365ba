"""Text that a language model is calibrated with: a plain file, or JSON lines with a member `text`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from masksmith_client._errors import InputError
from masksmith_wire.json_text import parse_json

JSON_LINES_SUFFIXES = (".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class CalibrationText:
    """The file of a text, and how many tokens of its beginning are used.

    Attributes:
        path: A file in UTF-8.
        windows: Number of windows, the sequences that the beginning is cut into.
        tokens: Tokens of each window.
    """

    path: Path
    windows: int = 64
    tokens: int = 256

    @classmethod
    def from_options(cls, path: Path | None, windows: int | None, tokens: int | None) -> CalibrationText | None:
        """Return the text that the command line's options describe; None if `path` is None.

        A number that is None gets its default.

        Raises:
            InputError: If a number is given without a path.
        """
        numbers = {key: value for key, value in {"windows": windows, "tokens": tokens}.items() if value is not None}
        if path is not None:
            return cls(path, **numbers)
        if numbers:
            raise InputError(f"{', '.join(f'--calibration-{key}' for key in numbers)} need(s) --calibration-text")
        return None

    def document(self) -> dict[str, Any]:
        """Return the JSON form for the record of a pruned checkpoint: digest of the file, windows and tokens.

        Raises:
            InputError: If the file cannot be read.
        """
        return {"blake3": blake3(self._bytes()).hexdigest(), "windows": self.windows, "tokens": self.tokens}

    def read(self) -> str:
        """Read the text. In a file of JSON lines, blank lines are skipped, and the texts are joined by empty lines.

        A byte order mark at the beginning is left out.

        Raises:
            InputError: If the file cannot be read or is not UTF-8, or a line is not JSON or has no text.
        """
        try:
            content = self._bytes().decode().removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path} is not UTF-8 at byte {error.start}; convert it first") from None
        return "\n\n".join(self._texts(content)) if self.path.suffix in JSON_LINES_SUFFIXES else content

    def _bytes(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror}") from None

    def _texts(self, content: str) -> Iterator[str]:
        # Not `splitlines`: JSON strings may contain other line separators, such as U+2028.
        for number, line in enumerate(content.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                document = parse_json(line)
            except ValueError as error:
                raise InputError(f"{self.path}:{number} is not JSON: {error}") from None
            text = document.get("text") if isinstance(document, dict) else None
            if not isinstance(text, str):
                raise InputError(f"{self.path}:{number} has no member 'text' that is a string")
            yield text
