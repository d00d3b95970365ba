"""Limits of what a service may send, without network I/O.

These are: the codings of bodies, the sizes and times of documents and downloads, and the lengths of lines in event
streams.
"""

from __future__ import annotations

from time import monotonic
from typing import BinaryIO

import httpx2

from masksmith_client._errors import SlowResponseError, WireError
from masksmith_wire.headers import FORMAT_MAX_HEADER_BYTES

MAX_DOCUMENT_BYTES = 2**28
"""Maximum size of a JSON document; the document of a job with the most shards has less than half this size."""
DOCUMENT_BYTES_PER_S, DOWNLOAD_BYTES_PER_S = 10_000, 1_000
"""The body of a response may take the client's timeout, and one second more each time that this number of bytes has
arrived. A lower rate for downloads would be of no use: a service with the default settings closes the connection of a
client that reads more slowly than about `DOWNLOAD_BYTES_PER_S`."""
MAX_LINE_BYTES = 2**20
"""Longest line, and longest event, of an event stream."""
CODINGS = frozenset({"", "identity", "gzip", "deflate"})
"""Content codings that are decoded, although the client requests none. Other codings, and several codings of one body,
are refused: a small body in them may need any amount of memory when it is decoded."""


def check_coding(response: httpx2.Response) -> httpx2.Response:
    """Check the content coding of a response before its body is read; return the response.

    Raises:
        WireError: If the coding is not one of `CODINGS`.
    """
    coding = response.headers.get("content-encoding", "").strip().lower()
    if coding not in CODINGS:
        raise WireError(f"the response of {response.request.url} has the content coding {coding[:40]!r}: not requested")
    return response


class _BodyTimer:
    """Limits the time that the body of a response takes; the time begins when this object is made.

    Args:
        response: The response. The read timeout of its request is the limit at first; if it is None, there is no limit.
        bytes_per_s: The number of bytes after which the limit is one second more.
    """

    def __init__(self, response: httpx2.Response, bytes_per_s: int) -> None:
        self._url, self._bytes_per_s, self._started = response.request.url, bytes_per_s, monotonic()
        self._timeout_s = response.request.extensions.get("timeout", {}).get("read")

    def check(self, size: int) -> None:
        """Check the time after `size` bytes of the body.

        Raises:
            SlowResponseError: If the body takes longer than it may.
        """
        seconds = monotonic() - self._started
        if self._timeout_s is not None and seconds > self._timeout_s + size / self._bytes_per_s:
            raise SlowResponseError(
                f"the response of {self._url} arrives too slowly: {size} bytes in {seconds:.0f} s, with a timeout of "
                f"{self._timeout_s:g} s"
            )


class LimitedDocument:
    """Collects the body of a response in memory; the time of the body begins when this object is made.

    Args:
        response: The response, whose body is read by the caller.
    """

    def __init__(self, response: httpx2.Response) -> None:
        self._response, self._body = response, bytearray()
        self._timer = _BodyTimer(response, DOCUMENT_BYTES_PER_S)

    def add(self, piece: bytes) -> None:
        """Add the next piece of the decoded body.

        Raises:
            WireError: If the body is larger than `MAX_DOCUMENT_BYTES`.
            SlowResponseError: If the body takes longer than it may.
        """
        self._body += piece
        self._timer.check(len(self._body))
        if len(self._body) > MAX_DOCUMENT_BYTES:
            url = self._response.request.url
            raise WireError(f"the response of {url} is larger than {MAX_DOCUMENT_BYTES} bytes: not a document")

    @property
    def response(self) -> httpx2.Response:
        """The response with its decoded body, and without the headers `_BODY_HEADERS`."""
        headers = [(name, value) for name, value in self._response.headers.raw if name.lower() not in _BODY_HEADERS]
        return httpx2.Response(
            self._response.status_code,
            headers=headers,
            content=bytes(self._body),
            request=self._response.request,
            extensions=self._response.extensions,
        )


_BODY_HEADERS = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})
"""Headers that describe the body as it was sent."""


class LimitedFile:
    """Writes a download to a file; the time of the download begins when this object is made.

    Args:
        file: The file.
        data_bytes: The most bytes that the tensors in the download can have.
        response: The response, whose body is read by the caller.
    """

    def __init__(self, file: BinaryIO, data_bytes: int, response: httpx2.Response) -> None:
        self.file, self._limit, self._size = file, data_bytes + FORMAT_MAX_HEADER_BYTES, 0
        self._timer = _BodyTimer(response, DOWNLOAD_BYTES_PER_S)

    def write(self, piece: bytes) -> None:
        """Write the next piece.

        Raises:
            WireError: If the download is larger than its tensors and a header can be.
            SlowResponseError: If the download takes longer than it may.
        """
        self._size += len(piece)
        self._timer.check(self._size)
        if self._size > self._limit:
            raise WireError(f"the download is larger than its tensors: more than {self._limit} bytes")
        self.file.write(piece)


class LineSplitter:
    """Splits the body of an event stream into lines, which end with LF, CR LF or CR."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, piece: bytes) -> list[str]:
        """Add the next piece of the body; returns the lines that it completes, without line breaks.

        Raises:
            WireError: If a line is longer than `MAX_LINE_BYTES`.
        """
        text = self._pending + piece
        # A CR at the end may be the first half of CR LF: it is kept until the next piece.
        ends_with_cr = text.endswith(b"\r")
        *lines, rest = (text[:-1] if ends_with_cr else text).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._pending = rest + b"\r" * ends_with_cr
        if max(map(len, [*lines, rest])) > MAX_LINE_BYTES:
            raise WireError(f"a line of the event stream is longer than {MAX_LINE_BYTES} bytes")
        return [line.decode(errors="replace") for line in lines]
