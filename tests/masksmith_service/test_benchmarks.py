"""Benchmarks over HTTP, without a worker: refused by name before anything is queued, recorded, looked at."""

import csv
import io
from datetime import UTC, datetime

import numpy as np
import pytest
from support.leases import take

from masksmith.benchmark import CaseResult, Measurement, Report, Timing
from masksmith_state.jobs.reports import ShardReport
from masksmith_state.queue import BENCH_CPU_QUEUE, CPU_QUEUE
from masksmith_wire.benchmarks import AnnouncedKernel, BenchWorker, CaseReport
from masksmith_wire.documents import WorkerInfo
from masksmith_wire.errors import TensorError

LAYER = {"name": "layer.weight", "rows": 64, "cols": 128}
ASKED = {"kind": "benchmark", "layers": [LAYER], "patterns": ["2:4"], "batches": [1, 32], "curves": False}


@pytest.fixture
def ask(client):
    def ask(**changes):
        document = {key: value for key, value in (ASKED | changes).items() if value is not None}
        return client.post("/v1/jobs", json=document)

    return ask


@pytest.fixture
def work(records):
    """Do all cases of a job as a worker would, with made-up times; `broken` ones fail."""

    def work(job, broken=()):
        for index, planned in records.cases(job).items():
            lease = take(records, job, index, lease_s=60, attempts=3)
            case, timing = CaseResult.read_case(planned.case), Timing(1.0, 0.9, 1.1, 2)
            measurements = [Measurement(name, "measured", eager=timing, speedup=1.0) for name in case.kernels]
            report = CaseReport(result=CaseResult(case, 0.5, measurements).document())
            if index in broken:
                report = CaseReport(error=TensorError(code="kernel_refused", message="nothing was measured"))
            assert records.complete(lease, report)

    return work


@pytest.fixture
def worker(records):
    """A measuring worker that has a kernel of its own and one that cannot run."""
    stranger = {
        "name": "stranger", "meaning": "another package's", "family": "any", "directions": ["forward"], "curve": [],
        "support": {"cpu": {"dtypes": {"float32": [32, 1]}, "least_block": 1, "square": False, "power_of_two": False}},
    }  # fmt: skip
    lame = stranger | {"name": "lame"}
    kernels = [AnnouncedKernel(declaration=stranger), AnnouncedKernel(declaration=lame, obstacle="it needs luck")]
    records.bench_workers.announce(BenchWorker(name="bench-1", device="cpu", kernels=kernels))
    yield
    records.bench_workers.remove("bench-1")


def test_a_benchmark_is_queued_for_bench_workers(ask, client, records):
    response = ask()
    assert response.status_code == 202, response.text
    job = response.json()
    assert (job["kind"], job["state"], job["pattern"], job["progress"]["total"]) == ("benchmark", "queued", "2:4", 2)
    assert [case["name"] for case in job["cases"]] == [
        f"64x128, 2:4, batch {batch}, float32, forward" for batch in (1, 32)
    ]
    assert [records.schedule.depth(queue) for queue in (BENCH_CPU_QUEUE, CPU_QUEUE)] == [2, 0]
    [listed] = client.get("/v1/jobs").json()["jobs"]
    assert (listed["kind"], listed["pattern"]) == ("benchmark", "2:4")


def test_a_well_known_model_needs_no_layers(ask):
    assert ask(layers=None, model="MiniLM").json()["progress"]["total"] == 6


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"kernels": ["magic"]}, "unknown_kernel", "there is no kernel 'magic'"),
        ({"kernels": ["csr"], "dtypes": ["bfloat16"]}, "kernel_refused", "it has no bfloat16 on cpu"),
        (
            {"kernels": ["semi-structured-cutlass"], "device": "cuda", "dtypes": ["float16"],
             "layers": [LAYER | {"rows": 48}]},
            "kernel_refused", "48 rows of W (float16) are not a multiple of 32",
        ),
        ({"kernels": ["bsr"]}, "kernel_refused", "2:4 has no blocks"),
        ({"kernels": ["semi-structured-cusparselt"]}, "kernel_refused", "it runs on cuda, not on cpu"),
        ({"patterns": ["2:5"]}, "invalid_benchmark", "tiles of 1x5 do not cover a 64x128 matrix"),
        ({"patterns": ["nonsense"]}, "invalid_benchmark", "'nonsense' is not a pattern"),
        ({"layers": None, "model": "GPT-9"}, "invalid_benchmark", "model 'GPT-9' is not known by name"),
        ({"batches": list(range(1, 101)), "layers": [LAYER] * 25, "patterns": [f"{n}%" for n in range(10, 20)]},
         "invalid_benchmark", "25000 cases are more than 20000"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_rejected_by_name(ask, client, records, changes, code, words):
    response = ask(**changes)
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, code), problem
    assert words in problem["detail"]
    assert client.get("/v1/jobs").json()["jobs"] == []
    assert records.schedule.depth(BENCH_CPU_QUEUE) == 0


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"layers": None}, "body: give exactly one of layers"),
        ({"patterns": []}, "body: patterns: give at least one"),
        ({"masks_of": "1"}, "body: give exactly"),
        ({"batches": [0]}, "body.batches.0"),
        ({"dtypes": ["int8"]}, "body.dtypes.0"),
        ({"layers": [LAYER | {"rows": 0}]}, "body.layers.0.rows"),
        ({"colour": "red"}, "body.colour"),
        ({"kind": "poem"}, "body"),
    ],
)
def test_documents_that_do_not_validate_say_where(ask, changes, place):
    response = ask(**changes)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_document")
    assert response.json()["detail"].startswith(place), response.json()


@pytest.mark.usefixtures("worker")
def test_kernels_of_workers_are_listed_and_unsupported_ones_rejected(ask, client):
    kernels = {one["name"]: one for one in client.get("/v1/kernels").json()}
    assert {"dense", "nm-gather", "stranger"} <= set(kernels)
    assert kernels["stranger"]["workers"] == [{"worker": "bench-1", "device": "cpu", "runs": True, "reason": None}]
    assert kernels["lame"]["workers"][0]["reason"] == "it needs luck"
    assert kernels["nm-gather"]["support"]["cpu"]["dtypes"]["float32"] == [1, 1]
    assert ask(kernels=["stranger"]).status_code == 202
    refused = ask(kernels=["stranger"], layers=[LAYER | {"rows": 48}]).json()
    assert "48 rows of W (float32) are not a multiple of 32" in refused["detail"]
    lame = ask(kernels=["lame"]).json()
    assert (lame["code"], "cannot run on cpu here: it needs luck" in lame["detail"]) == ("kernel_refused", True)


def test_the_report_comes_as_json_csv_and_a_page(ask, client, work):
    job = ask().json()["id"]
    early = client.get(f"/v1/jobs/{job}/benchmark")
    assert (early.status_code, early.json()["code"]) == (409, "job_not_finished")
    work(job)
    view = client.get(f"/v1/jobs/{job}").json()
    assert view["state"] == "succeeded"
    assert {case["state"] for case in view["cases"]} == {"succeeded"}
    case = view["cases"][0]
    assert (case["speedup"], case["low"] <= 1.0 <= case["high"]) == (1.0, True)
    report = Report.read(client.get(f"/v1/jobs/{job}/benchmark").json())
    assert [result.case.batch for result in report.results] == [1, 32]
    assert report.settings["job"] == job
    text = client.get(f"/v1/jobs/{job}/benchmark", params={"format": "csv"})
    assert text.headers["content-type"].startswith("text/csv")
    assert len(list(csv.DictReader(io.StringIO(text.text)))) == sum(len(one.measurements) for one in report.results)
    assert "## In words" in client.get(f"/v1/jobs/{job}/benchmark?format=markdown").text
    assert client.get(f"/v1/jobs/{job}/benchmark?format=pdf").status_code == 422


def test_cases_that_failed_are_named_and_the_others_reported(ask, client, work):
    job = ask().json()["id"]
    work(job, broken={0})
    view = client.get(f"/v1/jobs/{job}").json()
    assert view["state"] == "failed"
    assert [case["state"] for case in view["cases"]] == ["failed", "succeeded"]
    report = client.get(f"/v1/jobs/{job}/benchmark").json()
    assert report["failures"] == ["64x128, 2:4, batch 1, float32, forward: nothing was measured"]
    assert report["winners"]


def test_jobs_of_one_kind_have_no_results_of_the_other(ask, client, submit):
    masks, bench = submit()["id"], ask().json()["id"]
    assert client.get(f"/v1/jobs/{masks}/benchmark").json()["code"] == "result_not_found"
    client.post(f"/v1/jobs/{bench}/cancel")
    problem = client.get(f"/v1/jobs/{bench}/masks").json()
    assert problem["code"] == "result_not_found"
    assert "is a benchmark" in problem["detail"]


def test_a_benchmark_is_canceled_and_forgotten_like_any_job(ask, client):
    job = ask().json()["id"]
    assert client.post(f"/v1/jobs/{job}/cancel").json()["state"] == "canceled"
    assert {case["state"] for case in client.get(f"/v1/jobs/{job}").json()["cases"]} == {"canceled"}
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    assert client.get(f"/v1/jobs/{job}").status_code == 404


def test_the_same_key_gives_the_same_job(client):
    headers = {"Idempotency-Key": "once"}
    first, second = (client.post("/v1/jobs", json=ASKED, headers=headers).json() for _ in range(2))
    assert first["id"] == second["id"]
    other = client.post("/v1/jobs", json=ASKED | {"layers": [LAYER | {"rows": 32}]}, headers=headers)
    assert other.json()["code"] == "idempotency_conflict"


def test_masks_of_a_job_give_layers_and_pattern(ask, client, records, save, app):
    weight = np.ones((8, 16), np.float32)
    body = save({"a": weight, "b": weight, "c": np.ones((16, 16), np.float32)})
    job = client.post("/v1/masks", params={"pattern": "2:4"}, content=body).json()["id"]
    asked = {"layers": None, "patterns": None, "masks_of": job}
    assert ask(**asked).json()["code"] == "job_not_finished"
    references = app.state.masksmith.references
    for index in records.shards(job):
        assert references.add_result_reference(job, "0" * 64)
        lease = take(records, job, index, lease_s=60, attempts=3)
        records.complete(lease, ShardReport(result="0" * 64, mask_digest="d", status="optimal", kept=64, entries=128))
    made = ask(**asked).json()
    assert made["pattern"] == "2:4"
    assert [case["name"].split(",")[0] for case in made["cases"]] == ["8x16", "8x16", "16x16", "16x16"]
    planned = records.read(made["id"]).benchmark.masks
    assert set(planned) == {"a", "c"}
    assert {part.digest for mask in planned.values() for part in mask.parts} == {"d"}
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    assert references.is_referenced("result", "0" * 64)
    assert client.post(f"/v1/jobs/{made['id']}/cancel").status_code == 200
    assert not references.is_referenced("result", "0" * 64)
    assert ask(layers=None, patterns=None, masks_of="nope").json()["code"] == "job_not_found"
    assert ask(layers=None, patterns=None, masks_of=made["id"]).json()["code"] == "result_not_found"


def test_readiness_asks_for_a_worker_that_finds_masks(client, records):
    bench = WorkerInfo(
        name="b", device="cpu", device_name="", slots=1, queues=[BENCH_CPU_QUEUE], version="0",
        started_at=datetime.now(UTC),
    )  # fmt: skip
    records.workers.announce(bench)
    assert client.get("/readyz").json()["code"] == "no_worker"


def test_the_page_shows_cases_and_links_the_report(ask, client, work):
    job = ask().json()["id"]
    waiting = client.get(f"/jobs/{job}").text
    assert "0 of 2 cases" in waiting
    assert "Cancel" in waiting
    work(job, broken={1})
    page = client.get(f"/jobs/{job}").text
    assert "64x128, 2:4, batch 32, float32, forward" in page
    assert "1.00x" in page
    assert "nothing was measured" in page
    assert f"/v1/jobs/{job}/benchmark?format=csv" in page
    assert "2:4" in client.get("/jobs").text
