"""A session with one service: requests sent until they are answered, streams, downloads. No I/O here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

from masksmith_client._errors import TransportError
from masksmith_wire.headers import HeaderError, read_header

from .calls import Call, refusal
from .effects import Close, Copy, Open, Operation, Send, Sleep, Stream
from .retry import FAILURES, Attempts, RetryPolicy
from .settings import Settings

T = TypeVar("T")


@dataclass(slots=True)
class Session:
    """What all operations on one service share.

    Attributes:
        settings: The service's address and the key to it.
        policy: When and how often failed requests are sent again.
        reached: Whether the service has answered before.
    """

    settings: Settings
    policy: RetryPolicy
    reached: bool = False

    def send(self, call: Call[T]) -> Operation[T]:
        """Send a request until it is answered.

        Raises:
            StatusError: If the service refuses.
            TransportError: If there is no usable answer after all retries.
        """
        return self._retry(lambda: self._send(call))

    def open(self, call: Call[None], silence_s: float | None = None) -> Operation[Stream]:
        """Open a stream, without retries.

        Raises:
            StatusError: If the service refuses.
        """
        stream = yield from Open(call, silence_s)
        self.reached = True
        if not stream.response.is_success:
            raise refusal(stream.response)
        return stream

    def download(self, call: Call[None]) -> Operation[BinaryIO]:
        """Download a safetensors file to a temporary file, from the beginning after every cut; errors as of `send`."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the caller
        try:
            yield from self._retry(lambda: self._download(call, file))
        except BaseException:
            file.close()
            raise
        return file

    def _retry(self, attempt: Callable[[], Operation[T]]) -> Operation[T]:
        attempts = Attempts(self.policy, self.settings.url, reached=self.reached)
        while True:
            try:
                return (yield from attempt())
            except FAILURES as error:
                pause_s = attempts.pause_s(error)
            yield from Sleep(pause_s)

    def _send(self, call: Call[T]) -> Operation[T]:
        response = yield from Send(call)
        self.reached = True
        return call.read(response)

    def _download(self, call: Call[None], file: BinaryIO) -> Operation[None]:
        file.seek(0)
        file.truncate()
        stream = yield from self.open(call)
        try:
            yield from Copy(stream, file)
        finally:
            yield from Close(stream)
        try:
            read_header(file)
        except HeaderError as error:
            raise TransportError(f"the download was cut: {error}") from None
