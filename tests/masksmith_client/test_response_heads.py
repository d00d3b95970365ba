"""A service that goes on sending interim responses, or a head that does not end, meets the client's timeout."""

import asyncio
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from masksmith_client import AsyncClient, Client, ClientError
from masksmith_client._errors import SlowResponseError
from masksmith_client.transport import response_heads
from masksmith_client.transport.retry import RetryPolicy

INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n"
Serve = Callable[[Iterator[bytes]], str]
MANY = 1000
"""Pieces that are sent at most, so that a client without a limit ends, too."""


def answer(connection: socket.socket, pieces: Iterator[bytes]) -> None:
    with connection:
        connection.recv(2**16)
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.01)
        except OSError:
            pass  # The client has closed the connection.


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Answer one request with pieces; gives the URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve(pieces: Iterator[bytes]) -> str:
            threading.Thread(target=lambda: answer(server.accept()[0], pieces), daemon=True).start()
            return f"http://127.0.0.1:{server.getsockname()[1]}"

        yield serve


def get(url: str, *, is_async: bool) -> None:
    policy = RetryPolicy(retries=0)

    async def get_async() -> None:
        async with AsyncClient(url, timeout_s=30.0, retry=policy) as client:
            await client.jobs.get("j")

    if is_async:
        asyncio.run(get_async())
    else:
        with Client(url, timeout_s=30.0, retry=policy) as client:
            client.jobs.get("j")


@pytest.mark.parametrize("is_async", [False, True], ids=["blocking", "async"])
@pytest.mark.parametrize("piece", [INTERIM, b"X"], ids=["interim responses", "a head"])
def test_a_response_that_does_not_begin_has_a_timeout(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, piece: bytes, is_async: bool
) -> None:
    # Between two reads, 20 s pass.
    clock = itertools.count(step=20.0)
    monkeypatch.setattr(response_heads, "monotonic", lambda: next(clock))
    start = b"" if piece == INTERIM else b"HTTP/1.1 200 OK\r\n"
    url = serve(itertools.chain([start + piece], itertools.repeat(piece, MANY)))
    with pytest.raises(SlowResponseError, match=r"does not begin: .* arrived in 40 s, with a timeout of 30 s"):
        get(url, is_async=is_async)


@pytest.mark.parametrize("is_async", [False, True], ids=["blocking", "async"])
def test_interim_responses_in_time_are_skipped(serve: Serve, is_async: bool) -> None:
    url = serve(iter([INTERIM, INTERIM, b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"]))
    with pytest.raises(ClientError, match="404"):
        get(url, is_async=is_async)
