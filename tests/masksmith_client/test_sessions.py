"""Both clients are thin: the same methods, and no logic beside the shared operations."""

import ast
import asyncio
import inspect
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import httpx2
import pytest

import masksmith_client
from masksmith_client import AsyncClient, AsyncJob, Client, ClientError, Event, Job
from masksmith_client._async_jobs import AsyncJobs
from masksmith_client._jobs import Jobs
from masksmith_client.transport.async_session import AsyncSession
from masksmith_client.transport.blocking_session import BlockingSession
from masksmith_client.transport.retry import RetryPolicy
from masksmith_client.transport.session import ServiceSession
from masksmith_client.transport.settings import ConnectionSettings

from .conftest import FakeService, Pieces, event

FOLDER = Path(masksmith_client.__file__).parent
TWINS = [(Client, AsyncClient), (Job, AsyncJob), (Jobs, AsyncJobs)]
PARALLEL = 4
# It reads and writes files all the time, which asyncio would do in a thread anyway: callers start one around all of it.
BLOCKING_ONLY = {"prune"}


def methods(kind: type) -> dict[str, Any]:
    return {
        name: [(one.name, one.kind, one.default) for one in inspect.signature(member).parameters.values()]
        for name, member in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_") or name == "__init__"
    }


@pytest.mark.parametrize(("blocking", "other"), TWINS)
def test_both_clients_have_the_same_methods_with_the_same_parameters(blocking: type, other: type) -> None:
    assert {name: of for name, of in methods(blocking).items() if name not in BLOCKING_ONLY} == methods(other)
    assert len(methods(blocking)) > 4


@pytest.mark.parametrize("name", ["_client", "_async_client", "_jobs", "_async_jobs"])
def test_clients_have_no_loops_and_handle_no_errors(name: str) -> None:
    logic = (ast.For, ast.AsyncFor, ast.While, ast.Try, ast.comprehension)
    assert not [node for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text())) if isinstance(node, logic)]


@pytest.mark.parametrize("name", ["blocking_session", "async_session"])
def test_sessions_neither_retry_nor_poll(name: str) -> None:
    tree = ast.parse((FOLDER / "transport" / f"{name}.py").read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not modules & {"events", "masksmith_client._errors"}
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"Attempts", "Deadline", "Following", "ClientError"}
    caught = [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.type is not None]
    assert {ast.unparse(node.type) for node in caught if node.type} <= {"StopIteration"}


def sessions() -> list[BlockingSession | AsyncSession]:
    settings, policy = ConnectionSettings("http://service"), RetryPolicy()
    return [BlockingSession(settings, policy, httpx2.Client()), AsyncSession(settings, policy, httpx2.AsyncClient())]


def run(session: BlockingSession | AsyncSession, operation: Coroutine[Any, Any, Any]) -> Any:
    return session.run(operation) if isinstance(session, BlockingSession) else asyncio.run(operation)


@pytest.mark.parametrize("session", sessions())
def test_gathered_operations_run_side_by_side_and_keep_their_order(session: BlockingSession | AsyncSession) -> None:
    meeting = threading.Barrier(PARALLEL)

    async def one(session: ServiceSession, number: int) -> int:
        # Passes only if so many operations are under way at once.
        await session.run_blocking(lambda: meeting.wait(30.0))
        return number

    assert run(session, session.gather(one, range(2 * PARALLEL), PARALLEL)) == list(range(2 * PARALLEL))


@pytest.mark.parametrize("session", sessions())
def test_the_first_error_of_gathered_operations_ends_the_others_in_their_pauses(
    session: BlockingSession | AsyncSession,
) -> None:
    started: list[int] = []

    async def one(session: ServiceSession, number: int) -> None:
        started.append(number)
        await session.sleep(0.01 if number == 1 else 3600.0)
        raise ClientError("no")

    with pytest.raises(ClientError, match="no"):
        run(session, session.gather(one, range(50), PARALLEL))
    assert len(started) < 50


class Closed(Pieces):
    """A stream that says when it was closed."""

    closed = False

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


def endless() -> Closed:
    return Closed(event("1-0", "state", state="running"), *[b": ping\n\n"] * 10_000)


def test_a_listener_that_fails_ends_the_wait_and_closes_the_stream(
    service: FakeService, client: Client, weights: Any
) -> None:
    job = client.jobs.submit(weights, "2:4")
    service.streams = [stream := endless()]

    def listener(_: Event) -> None:
        raise ClientError("mine, not the stream's")

    with pytest.raises(ClientError, match="mine"):
        job.wait(on_event=listener)
    assert stream.closed
    assert service.count("GET", f"/v1/jobs/{job.id}/events") == 1


def test_leaving_a_loop_over_events_closes_the_stream(service: FakeService, client: Client, weights: Any) -> None:
    job = client.jobs.submit(weights, "2:4")
    service.streams = [stream := endless()]
    for first in job.events():
        assert first.id == "1-0"
        break
    del first
    assert stream.closed


def test_the_blocking_client_works_inside_of_a_running_loop_as_in_notebooks(
    service: FakeService, client: Client, weights: Any
) -> None:
    async def cell() -> None:
        job = client.jobs.submit(weights, "2:4")
        service.streams = [stream := endless()]
        assert next(iter(job.events())).id == "1-0"
        assert stream.closed
        assert set(job.wait().masks()) == set(weights)

    asyncio.run(cell(), debug=True)


def test_canceling_a_task_closes_its_stream(service: FakeService, async_client: AsyncClient, weights: Any) -> None:
    async def body() -> None:
        async with async_client as client:
            job = await client.jobs.submit(weights, "2:4")
            service.streams = [stream := endless()]
            waiting = asyncio.current_task()
            assert waiting is not None
            with pytest.raises(asyncio.CancelledError):
                await job.wait(on_event=lambda _: waiting.cancel())
            waiting.uncancel()
            assert stream.closed

    asyncio.run(body())
