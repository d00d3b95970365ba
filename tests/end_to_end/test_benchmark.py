"""Benchmarks through everything: client, service, Celery, a measuring worker beside a searching one."""

import asyncio
import json

import numpy as np
import pytest
from support.processes import poll, run

from masksmith_client import AsyncClient, BadRequest, Client, JobState
from masksmith_client.cli.app import run as masksmith

SMALL = {"batches": [1, 16], "rounds": 3}


@pytest.fixture(scope="module")
def measuring(shared_stack):
    """A worker that measures, with the installation of the other tests."""
    more = {"MASKSMITH_WORKER_ROLE": "bench", "MASKSMITH_WORKER_NAME": "bench-1"}
    log = shared_stack.folder / "bench.log"
    shared_stack.logs.append(log)
    process = run("masksmith_worker", log, shared_stack.environment | more)
    yield
    process.terminate()
    process.wait(240)


@pytest.fixture
def bench(measuring, stack, client):
    poll(lambda: any(one["workers"] for one in stack.http.get("/v1/kernels").json()))
    return client


def test_masks_that_were_found_are_measured(bench, layers):
    weights = {"a": np.ascontiguousarray(next(iter(layers.values()))[:64, :128])}
    job = bench.jobs.submit(weights, "2:4").wait()
    report = bench.benchmark(masks_of=job.id, kernels=["csr", "nm-gather"], **SMALL)
    assert not report.failures
    assert {(one.case.layer.name, one.case.pattern) for one in report.winners} == {("a", "2:4")}
    assert {one.kernel for result in report.results for one in result.measured} == {"dense", "csr", "nm-gather"}
    assert all(one.error <= 1.0 for result in report.results for one in result.measured)
    assert report.break_evens
    assert report.conclusions()


@pytest.mark.slow
def test_two_benchmarks_and_a_search_at_once_all_get_done(bench, stack):
    weight = np.random.default_rng(7).random((64, 64))

    async def together():
        async with AsyncClient(stack.url) as other:
            asked = [other.benchmark("32x64", ["2:4", "2:16"], curves=False, **SMALL) for _ in range(2)]
            return await asyncio.gather(*asked, other.solve({"w": weight}, "transposable 8:16"))

    first, second, masks = asyncio.run(together())
    assert masks.job.state is JobState.SUCCEEDED
    for report in (first, second):
        assert len(report.results) == 4
        assert not report.failures
    workers = {one.name: one.queues for one in bench.info().workers}
    assert workers["bench-1"] == ["masksmith.bench.cpu"]


def test_refusals_reach_the_caller(bench):
    with pytest.raises(BadRequest, match="there is no kernel 'magic'"):
        bench.benchmark("32x64", "2:4", kernels=["magic"])
    with pytest.raises(BadRequest, match="kernel 'bsr' cannot do 32x64"):
        bench.benchmark("32x64", "2:4", kernels=["bsr"])


def test_the_command(bench, stack, tmp_path, capsys):
    asked = ["--shapes", "32x64", "-p", "2:4", "-b", "4", "--rounds", "2", "--no-curves", "--url", stack.url]
    assert masksmith(["bench", *asked, "--json", "-o", str(tmp_path / "report.md")]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["settings"]["job"]
    assert "# Speed-up of masks" in (tmp_path / "report.md").read_text()
    assert masksmith(["jobs", "show", document["settings"]["job"], "--url", stack.url]) == 0
    assert "32x64, 2:4, batch 4" in capsys.readouterr().out
    with Client(stack.url) as client:
        assert client.jobs.get(document["settings"]["job"]).benchmark().conclusions() == document["conclusions"]
