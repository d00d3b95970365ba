"""A response that is finished, and that its client has not read: it is no idle connection, and it does not stay."""

import asyncio
import contextlib

import pytest
import uvicorn
from uvicorn.server import ServerState

from masksmith_service.bounds.connections import Connections
from masksmith_service.connection import Connection

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = bytes(8 * 2**20)
"""More than the buffers of both ends of a connection hold."""
STALL_S = 0.05
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(BODY))]}


async def answer(scope, receive, send):
    await send(START)
    await send({"type": "http.response.body", "body": BODY})


async def fail(scope, receive, send):
    await send(START)
    await send({"type": "http.response.body", "body": BODY[:1000], "more_body": True})
    raise RuntimeError("the blob is gone")


class Transport:
    """A transport whose write buffer has the size that the test sets."""

    def __init__(self):
        self.unsent, self.closes, self.was_aborted = 0, False, False

    def get_write_buffer_size(self):
        return self.unsent

    def write(self, data):
        self.unsent += len(data)

    def get_extra_info(self, name, default=None):
        return default

    def is_closing(self):
        return self.closes

    def close(self):
        self.closes = True

    def abort(self):
        self.was_aborted = self.closes = True

    def pause_reading(self):
        pass

    resume_reading = pause_reading


def connection(app, connections=None, read_s=60.0):
    config = uvicorn.Config(app, ws="none", log_config=None)
    limits = {"head_bytes": 2**16, "head_s": 60, "read_s": read_s}
    opened = Connections(10) if connections is None else connections
    return Connection(config, ServerState(), {}, open_connections=opened, **limits)


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_response_that_is_being_delivered_is_not_cut_to_make_room():
    opened = []

    def accept():
        opened.append(connection(answer, connections))
        return opened[-1]

    async def download():
        server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
            writer.write(REQUEST)
            await until(lambda: opened and opened[0].cycle and opened[0].cycle.response_complete)
            assert opened[0].transport.get_write_buffer_size() > 0
            _, other = await asyncio.open_connection("127.0.0.1", port)
            await until(lambda: len(opened) == 2)
            await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(len(BODY))
            await until(lambda: opened[0].is_idle)
            for each in (writer, other):
                each.close()
            return body

    connections = Connections(1)
    assert asyncio.run(download()) == BODY


@contextlib.asynccontextmanager
async def answering(app, read_s):
    """A connection on which a request has just been answered, of whose response so much is unsent."""
    one, transport = connection(app, read_s=read_s), Transport()
    one.connection_made(transport)
    one.data_received(REQUEST)
    await until(lambda: one.cycle.response_complete or transport.closes)
    transport.unsent = 1000  # less than what pauses writing
    yield one, transport
    one.connection_lost(None)
    await asyncio.gather(*one.tasks)


@pytest.mark.parametrize("app", [answer, fail])
def test_the_rest_of_a_response_is_not_kept_for_a_client_that_does_not_read(app):
    async def wait():
        async with answering(app, STALL_S) as (_, transport):
            await until(lambda: transport.was_aborted)

    asyncio.run(wait())


def test_the_rest_that_is_left_when_writing_goes_on_is_not_kept_either():
    async def wait():
        async with answering(answer, STALL_S) as (one, transport):
            transport.unsent = 10**6
            one.pause_writing()
            transport.unsent = 1000
            one.resume_writing()
            await until(lambda: transport.was_aborted)

    asyncio.run(wait())


def test_a_connection_whose_response_was_read_stays_open():
    async def wait():
        async with answering(answer, STALL_S) as (one, transport):
            transport.unsent = 0
            await until(lambda: not one._write_timer.is_running)
            assert not transport.closes
            assert one.is_idle

    asyncio.run(wait())


def test_what_the_next_response_adds_does_not_count_as_unread():
    """The timer of the last response ends while the next request, which has written, is still being answered."""

    async def answer_slowly(scope, receive, send):
        await send(START)
        await send({"type": "http.response.body", "body": bytes(10_000), "more_body": True})
        await finish.wait()
        await send({"type": "http.response.body", "body": BODY[10_000:]})

    async def wait():
        async with answering(answer_slowly, STALL_S) as (one, transport):
            transport.unsent = 100
            finish.clear()
            one.data_received(REQUEST)
            await until(lambda: one.cycle.response_started)
            assert not one._write_timer.is_running
            assert not transport.was_aborted
            finish.set()
            await until(lambda: one.cycle.response_complete)

    finish = asyncio.Event()
    finish.set()
    asyncio.run(wait())


def test_writing_that_is_paused_stays_timed_when_the_next_request_begins():
    async def wait():
        async with answering(answer, 60) as (one, transport):
            transport.unsent = 10**6
            one.pause_writing()
            one.data_received(REQUEST)
            assert one._write_timer.is_running
            one.resume_writing()
            await until(lambda: one.cycle.response_complete)

    asyncio.run(wait())
