"""Both clients are thin: the same methods, and no logic beside the shared operations."""

import ast
import asyncio
import inspect
import threading
from pathlib import Path
from typing import Any

import httpx2
import pytest

import masksmith_client
from masksmith_client import AsyncClient, AsyncJob, Client, ClientError, Event, Job
from masksmith_client._async_jobs import AsyncJobs
from masksmith_client._jobs import Jobs
from masksmith_client.transport.async_driver import AsyncDriver
from masksmith_client.transport.driver import Driver
from masksmith_client.transport.effects import Block, Gather, Operation, Sleep
from masksmith_client.transport.retry import RetryPolicy
from masksmith_client.transport.session import Session
from masksmith_client.transport.settings import Settings

from .conftest import FakeService, Pieces, event

FOLDER = Path(masksmith_client.__file__).parent
TWINS = [(Client, AsyncClient), (Job, AsyncJob), (Jobs, AsyncJobs), (Driver, AsyncDriver)]
PARALLEL = 4


def methods(kind: type) -> dict[str, Any]:
    return {
        name: [(one.name, one.kind, one.default) for one in inspect.signature(member).parameters.values()]
        for name, member in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_") or name == "__init__"
    }


@pytest.mark.parametrize(("blocking", "other"), TWINS[:3])
def test_both_clients_have_the_same_methods_with_the_same_parameters(blocking: type, other: type) -> None:
    assert methods(blocking) == methods(other)
    assert len(methods(blocking)) > 4


@pytest.mark.parametrize("name", ["_client", "_async_client", "_jobs", "_async_jobs"])
def test_clients_have_no_loops_and_handle_no_errors(name: str) -> None:
    logic = (ast.For, ast.AsyncFor, ast.While, ast.Try, ast.comprehension)
    assert not [node for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text())) if isinstance(node, logic)]


@pytest.mark.parametrize("name", ["driver", "async_driver"])
def test_drivers_neither_retry_nor_poll(name: str) -> None:
    tree = ast.parse((FOLDER / "transport" / f"{name}.py").read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not modules & {"retry", "events", "_errors", "masksmith_client._errors"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)]
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.While)]
    assert all(
        "execution.effect" in ast.unparse(node.test) or "to_thread(next" in ast.unparse(node.test) for node in loops
    )


def drivers() -> tuple[Driver, AsyncDriver]:
    session = Session(Settings("http://service"), RetryPolicy())
    refuse = httpx2.MockTransport(lambda _: httpx2.Response(404))
    return Driver(session, httpx2.Timeout(1.0), refuse), AsyncDriver(session, httpx2.Timeout(1.0), refuse)


def run(driver: Driver | AsyncDriver, operation: Operation[Any]) -> Any:
    return driver.run(operation) if isinstance(driver, Driver) else asyncio.run(driver.run(operation))


@pytest.mark.parametrize("driver", drivers())
def test_gathered_operations_run_side_by_side_and_keep_their_order(driver: Driver | AsyncDriver) -> None:
    meeting = threading.Barrier(PARALLEL)

    def one(number: int) -> Operation[int]:
        # Passes only if so many operations are under way at once.
        yield from Block(lambda: meeting.wait(30.0))
        return number

    def all_of_them() -> Operation[list[int]]:
        return (yield from Gather([one(number) for number in range(2 * PARALLEL)], PARALLEL))

    assert run(driver, all_of_them()) == list(range(2 * PARALLEL))


@pytest.mark.parametrize("driver", drivers())
def test_the_first_error_of_gathered_operations_ends_the_others_in_their_pauses(driver: Driver | AsyncDriver) -> None:
    started: list[int] = []

    def patient(number: int) -> Operation[None]:
        started.append(number)
        yield from Sleep(3600.0)

    def failing() -> Operation[None]:
        yield from Sleep(0.01)
        raise ClientError("no")

    def all_of_them() -> Operation[list[None]]:
        return (yield from Gather([patient(0), failing(), *(patient(number) for number in range(2, 50))], PARALLEL))

    with pytest.raises(ClientError, match="no"):
        run(driver, all_of_them())
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
