"""The blocking connection: sends calls, tries again, streams. Its asyncio twin is `async_connection`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import BinaryIO, TypeVar

import httpx2

from masksmith_client._errors import ClientError
from masksmith_client.results.masks import check_file

from .calls import Call, refusal
from .events import SILENCE_S, Event, EventParser
from .http import client_options
from .retry import Attempts, RetryPolicy, as_client_error
from .settings import Settings

T = TypeVar("T")
FAILURES = (httpx2.RequestError, ClientError)


class StoppedError(Exception):
    """The caller no longer wants the answer."""


class Connection:
    """A pool of connections to one service; safe to use from several threads."""

    def __init__(
        self,
        settings: Settings,
        policy: RetryPolicy,
        timeout: httpx2.Timeout,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self.settings = settings
        self.policy = policy
        self._reached = False
        self._http = httpx2.Client(**client_options(settings, timeout), transport=transport)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def send(self, call: Call[T], stop: threading.Event | None = None) -> T:
        """Send a call until it is answered.

        Args:
            call: What to send.
            stop: Ends the pauses between attempts.

        Raises:
            StoppedError: If `stop` was set.
            StatusError: If the answer is no.
            TransportError: If there is none.
        """
        attempts = self._attempts()
        while True:
            try:
                response = self._http.send(self._request(call))
                self._reached = True
                return call.read(response)
            except FAILURES as error:
                pause_s = attempts.pause_s(error)
            if stop is None:
                time.sleep(pause_s)
            elif stop.wait(pause_s):
                raise StoppedError

    def download(self, call: Call[None], file: BinaryIO) -> None:
        """Write an answer's body, a masks file, into `file`, from the beginning after every cut."""
        attempts = self._attempts()
        while True:
            try:
                file.seek(0)
                file.truncate()
                response = self._open(call)
                try:
                    for piece in response.iter_bytes():
                        file.write(piece)
                finally:
                    response.close()
                return check_file(file)
            except FAILURES as error:
                time.sleep(attempts.pause_s(error))

    def events(self, call: Call[None], silence_s: float = SILENCE_S) -> Iterator[Event | None]:
        """Give the events of one stream; None once it is open and for every line between, as a time to look around.

        Raises:
            ClientError: If it cannot be opened or breaks; nothing is retried here.
        """
        parser = EventParser()
        try:
            response = self._open(call, silence_s)
            try:
                yield None
                for line in response.iter_lines():
                    yield parser.feed(line)
            finally:
                response.close()
        except httpx2.RequestError as error:
            raise as_client_error(error, self.settings.url) from error

    def _attempts(self) -> Attempts:
        return Attempts(self.policy, self.settings.url, reached=self._reached)

    def _request(self, call: Call[T]) -> httpx2.Request:
        content = call.body() if call.body else None
        return self._http.build_request(
            call.method, call.path, params=dict(call.params), headers=dict(call.headers), content=content
        )

    def _open(self, call: Call[None], silence_s: float | None = None) -> httpx2.Response:
        request = self._request(call)
        if silence_s is not None:
            request.extensions["timeout"] = {**request.extensions["timeout"], "read": silence_s}
        response = self._http.send(request, stream=True)
        if not response.is_success:
            response.read()
            response.close()
            raise refusal(response)
        return response
