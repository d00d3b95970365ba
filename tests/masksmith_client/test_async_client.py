import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import httpx2
import numpy as np
import pytest
import torch

from masksmith_client import AsyncClient, BadRequest, JobFailedError, NotFound, TimeoutError
from masksmith_client.submission.streamed_tensor import StreamedTensor

from .conftest import FakeService, Pieces, event, problem, refused, reset

Body = Callable[[AsyncClient], Coroutine[Any, Any, None]]


def run(client: AsyncClient, body: Body) -> None:
    async def whole() -> None:
        async with client:
            await body(client)

    asyncio.run(whole())


def test_masks_come_back_as_from_the_twin(service: FakeService, async_client: AsyncClient, weights: Any) -> None:
    async def body(client: AsyncClient) -> None:
        masks = await client.solve(weights | {"t": torch.ones(4, 4)}, "2:4")
        assert set(masks) == {"a", "b", "t"}
        assert masks["t"].dtype == torch.bool
        assert (await client.info()).ready is False

    run(async_client, body)
    assert service.count("PUT", "/v1/tensors") == 3


def test_faults_are_ridden_out(service: FakeService, async_client: AsyncClient, weights: Any) -> None:
    service.fail("PUT", "/v1/tensors", reset)
    service.fail("POST", "/v1/jobs", reset)

    async def body(client: AsyncClient) -> None:
        job = await client.jobs.submit(weights, "2:4")
        service.streams = [Pieces(event("1-0", "state", state="running"), cut=True)]
        service.fail("GET", f"/v1/jobs/{job.id}/masks", refused)
        assert [e.id async for e in job.events()] == ["1-0", "1-0", "2-0", "3-0"]
        assert len(await (await job.wait()).masks()) == 2

    run(async_client, body)
    assert len(service.jobs) == 1


def test_errors_are_the_same(service: FakeService, async_client: AsyncClient, weights: Any) -> None:
    service.bad_tensors.add("a")

    async def body(client: AsyncClient) -> None:
        with pytest.raises(NotFound):
            await client.jobs.get("x")
        job = await client.jobs.submit(weights, "2:4")
        with pytest.raises(TimeoutError):
            await job.wait(0.05)
        with pytest.raises(JobFailedError):
            await job.wait()
        await client.jobs.cancel(job.id)
        assert [summary.id async for summary in client.jobs.list()] == [job.id]
        await job.delete()
        assert [summary.id async for summary in client.jobs.list()] == []

    run(async_client, body)


def test_a_refused_upload_stops_the_others(service: FakeService, async_client: AsyncClient) -> None:
    service.fail("PUT", "/v1/tensors", *[lambda _: problem(413, "body_too_large", "too large")] * 50)

    async def body(client: AsyncClient) -> None:
        with pytest.raises(BadRequest):
            await client.solve({f"w{n}": np.full((4, 4), float(n)) for n in range(50)}, "2:4")

    run(async_client, body)
    assert service.count("PUT", "/v1/tensors") < 20


def test_the_loop_goes_on_while_weights_are_read(
    service: FakeService, async_client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, went_on, digest = threading.Event(), threading.Event(), StreamedTensor.digest

    def slow_digest(weight: StreamedTensor) -> str:
        reading.set()
        assert went_on.wait(60), "the loop waits for the weight"
        return digest(weight)

    async def body(client: AsyncClient) -> None:
        solving = asyncio.ensure_future(client.solve({"w": np.ones((8, 8))}, "2:4"))
        while not reading.is_set():
            await asyncio.sleep(0.001)
        went_on.set()
        await solving

    monkeypatch.setattr(StreamedTensor, "digest", slow_digest)
    run(async_client, body)
    assert isinstance(service.requests[0], httpx2.Request)
