"""Limits of what a service may send: sizes of documents, downloads and lines of event streams. No I/O."""

from __future__ import annotations

import time
from typing import BinaryIO

import httpx2

from masksmith_client._errors import WireError
from masksmith_wire.headers import LARGEST_HEADER_BYTES

MAX_DOCUMENT_BYTES = 2**28
"""Largest JSON document; that of a job with the most shards has less than half of it."""
DOCUMENT_S, DOCUMENT_BYTES_PER_S = 60.0, 10_000
"""Longest time for the body of a document: these seconds, and one more for each of these bytes that have arrived."""
MAX_LINE_BYTES = 2**20
"""Longest line, and longest event, of an event stream."""
CODINGS = frozenset({"", "identity", "gzip", "deflate"})
"""Content codings that are decoded; the client asks for none. Others, and several at once, may expand without bound."""


def check_coding(response: httpx2.Response) -> httpx2.Response:
    """Check the content coding of a response before its body is read.

    Raises:
        WireError: If it is not one of `CODINGS`.
    """
    coding = response.headers.get("content-encoding", "").strip().lower()
    if coding not in CODINGS:
        raise WireError(f"the response of {response.request.url} has the content coding {coding[:40]!r}: not requested")
    return response


class LimitedDocument:
    """Collects the body of a response in memory; its time begins when this is made.

    Args:
        response: The response, whose body is read by the caller.
    """

    def __init__(self, response: httpx2.Response) -> None:
        self._response, self._body, self._started = response, bytearray(), time.monotonic()

    def add(self, piece: bytes) -> None:
        """Add the next piece of the decoded body.

        Raises:
            WireError: If the body is larger than `MAX_DOCUMENT_BYTES`, or takes longer than `DOCUMENT_S` allows.
        """
        self._body += piece
        url, seconds = self._response.request.url, time.monotonic() - self._started
        if seconds > DOCUMENT_S + len(self._body) / DOCUMENT_BYTES_PER_S:
            raise WireError(f"the response of {url} arrives too slowly: {len(self._body)} bytes in {seconds:.0f} s")
        if len(self._body) > MAX_DOCUMENT_BYTES:
            raise WireError(f"the response of {url} is larger than {MAX_DOCUMENT_BYTES} bytes: not a document")

    @property
    def response(self) -> httpx2.Response:
        """The response with its body."""
        headers = [(name, value) for name, value in self._response.headers.raw if name.lower() not in _OF_BODY]
        return httpx2.Response(
            self._response.status_code,
            headers=headers,
            content=bytes(self._body),
            request=self._response.request,
            extensions=self._response.extensions,
        )


_OF_BODY = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})
"""Headers that describe the body as it was sent."""


class LimitedFile:
    """Writes a download to a file.

    Args:
        file: The file.
        data_bytes: The most bytes that the tensors in the download can have.
    """

    def __init__(self, file: BinaryIO, data_bytes: int) -> None:
        self.file, self._limit, self._size = file, data_bytes + LARGEST_HEADER_BYTES, 0

    def write(self, piece: bytes) -> None:
        """Write the next piece.

        Raises:
            WireError: If the download is larger than its tensors can be.
        """
        self._size += len(piece)
        if self._size > self._limit:
            raise WireError(f"the download is larger than its tensors: more than {self._limit} bytes")
        self.file.write(piece)


class LineSplitter:
    """Splits the body of an event stream into lines, which end with LF, CR LF or CR."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, piece: bytes) -> list[str]:
        """Add the next piece of the body; returns the lines that it completes, without their ends.

        Raises:
            WireError: If a line is longer than `MAX_LINE_BYTES`.
        """
        text = self._pending + piece
        # A CR at the end may be the first half of CR LF.
        held = text.endswith(b"\r")
        *lines, rest = (text[:-1] if held else text).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._pending = rest + b"\r" * held
        if max(map(len, [*lines, rest])) > MAX_LINE_BYTES:
            raise WireError(f"a line of the event stream is longer than {MAX_LINE_BYTES} bytes")
        return [line.decode(errors="replace") for line in lines]
