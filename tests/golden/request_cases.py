"""What the client is asked to do for `requests.json`, once blocking and once with asyncio."""

from __future__ import annotations

import asyncio
import inspect
import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import httpx2
import numpy as np
from golden.fake_service import FakeService, Pieces, event, masks_file, problem, reset, safetensors
from golden.scores import normal

import masksmith as ms
from masksmith_client import AsyncClient, Client, ClientError, RetryPolicy

QUICK = RetryPolicy(retries=3, first_s=0.001, longest_s=0.002, outage_s=300.0)
Scenario = Callable[[Any, FakeService], Awaitable[None]]
TWINS = {"sync": Client, "async": AsyncClient}
SCENARIOS: dict[str, Scenario] = {}


def scenario(body: Scenario) -> Scenario:
    """Note a scenario under its own name."""
    SCENARIOS[body.__name__] = body
    return body


async def take(value: Any) -> Any:
    """Return an answer of either twin."""
    return await value if inspect.isawaitable(value) else value


async def every(values: Any) -> list[Any]:
    """Go through what either twin iterates over."""
    return [value async for value in values] if hasattr(values, "__aiter__") else list(values)


async def close(client: Any) -> None:
    """Close either twin."""
    await take(client.close() if isinstance(client, Client) else client.__aexit__(None, None, None))


async def refused(kind: str, value: Callable[[], Any]) -> None:
    """Expect an error by its name."""
    try:
        await take(value())
    except ClientError as error:
        assert type(error).__name__ == kind, error  # noqa: PT017 - either twin raises it
    else:
        raise AssertionError(f"no {kind}")


def weights() -> dict[str, Any]:
    """Return a small model: weights, a convolution, a tied weight, and tensors that are no weights."""
    first = normal(1, (8, 8)).astype(np.float32)
    return {
        "a": first, "b": normal(2, (4, 12)), "tied": first, "conv": normal(3, (4, 8, 3, 3)).astype(np.float32),
        "half": normal(4, (8, 16)).astype(np.float16), "bias": np.ones(8, np.float32), "ids": np.arange(8),
    }  # fmt: skip


def lines(name: str, twin: str) -> list[dict[str, Any]]:
    """Play a scenario and give the requests it made."""
    service = FakeService()

    async def play() -> None:
        transport = httpx2.MockTransport(service)
        client = TWINS[twin]("https://masks.example/prefix", "secret", retry=QUICK, transport=transport)
        await SCENARIOS[name](client, service)
        await close(client)

    with patch.dict(os.environ):
        os.environ.pop("MASKSMITH_URL", None)
        os.environ.pop("MASKSMITH_TOKEN", None)
        asyncio.run(play())
    assert not service.faults
    assert not service.streams
    return service.lines()


@scenario
async def solve(client: Any, service: FakeService) -> None:
    masks = await take(client.solve(weights(), "transposable 2:4", progress=False))
    assert sorted(masks) == ["a", "b", "conv", "half", "tied"]


@scenario
async def solve_again(client: Any, service: FakeService) -> None:
    for pattern in ("2:4", "1:4"):
        await take(client.solve({"a": weights()["a"]}, pattern, progress=False, timeout_s=100.0))


@scenario
async def options(client: Any, service: FakeService) -> None:
    model = weights()
    submit = client.jobs.submit
    await take(submit(model, "2:4", layers=["a", "b*", "conv"], exclude="b", solver="top-k", time_limit_s=2.5))
    await take(submit(model, "2:4", layers="a", scores="magnitude power=2", axis="out", ragged="dense", spectrum=True))
    await take(submit(model, ms.NM(8, 16, transposable=True, fill="at_most", ragged="dense"), exclude=["ha*", "conv"]))
    await take(submit(model, ms.parse("block 4x4 50% balance both"), layers=["a"], solver="min-cost-flow"))
    await take(submit(model, "2:4", budget="50%", floors=["a*=25%"], layers=["a", "b"]))
    await take(submit(model, "<=2:4", budget=ms.Budget.parse("40%", ["b=30%"]), layers=["a", "b"]))
    await take(submit(model, "2:4", view="flat", layers="conv"))
    await take(submit({"s": abs(model["a"])}, "16:2:8", scores="given"))
    await take(submit({"s": model["a"]}, "channels 50%", axis="out", scores="magnitude", time_limit_s=7))
    for solver in ("auto", "exact", "greedy", "sinkhorn", "enumerate"):
        await take(submit({"s": model["a"]}, "transposable 2:4", solver=solver))
    await refused("InputError", lambda: submit(model, "transposable 8:16", solver="enumerate"))
    await refused("InputError", lambda: submit(model, "2:4", layers="nobody"))


@scenario
async def patterns_by_tensor(client: Any, service: FakeService) -> None:
    model = weights()
    await take(client.jobs.submit(model, ["2:4", "a=transposable 2:4"], layers=["a", "b"]))
    await take(
        client.jobs.submit(model, {"b": ms.NM(1, 4, axis="out"), "*": ms.NM(2, 4, axis="out")}, layers=["a", "b"])
    )
    await take(client.jobs.submit(model, ["a=1:4"]))
    await refused("InputError", lambda: client.jobs.submit(model, ["2:4", "nobody=1:4"]))
    await refused("InputError", lambda: client.jobs.submit(model, ["2:4", "a=1:4"], budget="50%"))


@scenario
async def calibrated(client: Any, service: FakeService) -> None:
    one = {"a": weights()["a"]}
    norms, gram = {"a": np.arange(8.0)}, np.eye(8)
    submit = client.jobs.submit
    await take(submit(one | {"b": weights()["b"]}, "2:4", scores="wanda", calibration=norms))
    await take(submit(one, "2:4", scores="ria power=0.7", calibration=norms))
    await take(submit(one, "2:4", scores="sparsegpt damping=0.1", calibration={"a": gram}))
    await take(submit(one, "2:4", scores="taylor", calibration={"a": abs(one["a"])}))
    await take(submit(one, "2:4", scores="sipp reduce=max", calibration={"a": np.ones((3, 8), np.float32)}))
    await take(submit(one, "2:4", scores="given", calibration={"a": abs(one["a"])}))
    job = await take(submit(one, "2:4", update="admm penalty=0.1", calibration={"a": gram}))
    assert list(await take((await take(job.wait())).weights())) == ["a"]
    gathered = SimpleNamespace(samples=3, norms=np.arange(8.0), gram=gram)
    await take(submit(one, "2:4", scores="wanda", update="reconstruct", calibration={"a": gathered}))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "statistics.safetensors"
        path.write_bytes(safetensors({"a/norms": np.arange(8.0), "a/gram": gram}))
        for update in ("reconstruct", "reconstruct damping=0.5"):
            await take(submit(one, "2:4", scores="wanda", update=update, calibration=path))


@scenario
async def files(client: Any, service: FakeService) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, masks = Path(folder) / "model.safetensors", Path(folder) / "masks.safetensors"
        path.write_bytes(safetensors({"x": normal(5, (8, 8)), "y": np.ones((4, 4), np.float32), "z": np.ones(4)}))
        masks.write_bytes(masks_file({"x": (8, 8)}))
        await take(client.jobs.submit(path, "2:4"))
        await take(client.jobs.submit(str(path), "2:4", layers="x", previous=masks))
        job = await take(client.jobs.submit({"x": normal(5, (8, 8))}, "2:4", previous="00ff"))
        await take(client.jobs.submit(path, "1:4", previous=job))
        await take(client.jobs.submit(path, "1:4", previous=await take(job.masks())))


@scenario
async def many_weights(client: Any, service: FakeService) -> None:
    model = {f"layer.{n}.weight": np.full((8, 8), n % 9 + 1.0, np.float32) for n in range(12)}
    job = await take(client.jobs.submit(model | {"big": normal(6, (512, 300))}, "2:4", exclude=["layer.1*"]))
    assert job.id == "0000"


@scenario
async def following(client: Any, service: FakeService) -> None:
    job = await take(client.jobs.submit({"a": weights()["a"]}, "2:4"))
    first = event("1-0", "state", state="running")
    service.streams = [
        Pieces(first, event("2-0", "progress", done=1, total=2), cut=True),
        Pieces(b": ping\n\n", event("3-0", "progress", done=2, total=2)),
        Pieces(event("4-0", "state", state="succeeded")),
    ]
    assert [one.id for one in await every(job.events())] == ["1-0", "2-0", "3-0", "4-0"]
    service.streams = [Pieces(first), Pieces()]
    await every(job.events())
    service.fail("GET", "/events", problem(503), reset)
    service.patience = 2
    await take(job.wait(100.0))


@scenario
async def polling(client: Any, service: FakeService) -> None:
    job = await take(client.jobs.submit({"a": weights()["a"]}, "2:4"))
    service.patience = 3
    await take(job.wait(15.0))
    service.state = "failed"
    await refused("JobFailedError", lambda: job.wait(15.0))
    await refused("JobFailedError", lambda: job.wait())
    assert list(await take(job.masks())) == ["a"]


@scenario
async def jobs(client: Any, service: FakeService) -> None:
    job = await take(client.jobs.get("00ab"))
    await take(job.refresh())
    await take(job.cancel())
    await take(client.jobs.cancel("00cd"))
    await take(job.delete())
    await take(client.jobs.delete("00cd"))
    await take(client.jobs.get("../../healthz?x=1 ü"))
    for limit, pages in ((None, 3), (250, 2), (2, 5), (0, 0)):
        service.pages = pages
        await every(client.jobs.list(limit))
    service.fail("GET", "/jobs/gone", problem(404, "job_not_found"))
    await refused("NotFound", lambda: client.jobs.get("gone"))


@scenario
async def downloads(client: Any, service: FakeService) -> None:
    job = await take(client.jobs.get("00ab"))
    cut = Pieces(masks_file({"a": (8, 8)})[:50])
    service.fail("GET", "/masks", problem(503), lambda _: httpx2.Response(200, stream=cut), reset)
    assert sorted(await take(job.masks())) == ["a", "b"]
    service.fail("GET", "/weights", problem(502))
    assert list(await take(job.weights())) == ["a", "b"]
    service.fail("GET", "/masks", problem(409, "job_not_finished"))
    await refused("Conflict", job.masks)


@scenario
async def benchmarks(client: Any, service: FakeService) -> None:
    await take(client.benchmark("MiniLM", ["2:4", "transposable 8:16"], progress=False))
    await take(
        client.benchmark(
            "1536x384*6", "2:4", progress=False, batches=[1, 8], dtypes=["float32", "float64"], rounds=3, seed=7,
            directions=["forward", "backward"], kernels=["dense"], curves=False, threads=2, device="cpu",
        )
    )  # fmt: skip
    await take(client.jobs.submit_benchmark(weights(), [ms.NM(2, 4), "50%"]))
    job = await take(client.jobs.submit_benchmark(masks_of="00ab"))
    await take(job.wait_for_report(100.0))
    await take(job.benchmark())


@scenario
async def info(client: Any, service: FakeService) -> None:
    assert (await take(client.info())).ready
    service.fail("GET", "/readyz", problem(503, "no_worker"))
    service.fail("GET", "/workers", problem(403, "forbidden"))
    service.fail("GET", "/patterns", problem(503), problem(429, "full", {"retry-after": "0"}))
    assert not (await take(client.info())).ready


@scenario
async def retries(client: Any, service: FakeService) -> None:
    one = {"a": weights()["a"]}
    service.fail("GET", "/healthz", problem(500))
    service.fail("HEAD", "", problem(503))
    service.fail("PUT", "", problem(503), reset, problem(400, "body_incomplete"))
    service.fail("POST", "/jobs", problem(503), reset)
    await take(client.jobs.submit(one, "2:4"))
    service.fail("POST", "/jobs", problem(422, "upload_not_found"))
    await take(client.jobs.submit(one, "1:4"))
    service.fail("POST", "/jobs", problem(422, "upload_damaged"), problem(503))
    await take(client.jobs.submit(one, "3:4"))
    service.fail("POST", "/jobs", *[problem(503)] * 4)
    await refused("ServerError", lambda: client.jobs.submit(one, "4:4"))
    service.fail("POST", "/jobs", problem(400, "bad_request"))
    await refused("BadRequest", lambda: client.jobs.submit(one, "4:4"))
    service.fail("POST", "/jobs", problem(503))
    await take(client.jobs.submit_benchmark("MiniLM", "2:4"))
    service.fail("DELETE", "/jobs/00ab", problem(503), problem(408))
    await take(client.jobs.delete("00ab"))


@scenario
async def from_the_environment(client: Any, service: FakeService) -> None:
    transport = httpx2.MockTransport(service)
    for values in ({"MASKSMITH_URL": "https://other.example/deep/", "MASKSMITH_TOKEN": "hidden"}, {}):
        with patch.dict(os.environ):
            os.environ.pop("MASKSMITH_URL", None)
            os.environ.pop("MASKSMITH_TOKEN", None)
            os.environ.update(values)
            other = type(client)(transport=transport, retry=QUICK, timeout_s=9.0)
            await take(other.jobs.get("00ab"))
            await close(other)
