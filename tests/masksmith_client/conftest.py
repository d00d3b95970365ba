"""A service in memory: enough of the wire to be a partner for the client, with faults on demand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx2
import numpy as np
import pytest
from blake3 import blake3

import masksmith as ms
from masksmith_client import AsyncClient, Client, RetryPolicy, _client
from masksmith_client.cli import service as service_commands
from masksmith_wire.documents import Job, JobState, MasksRequest, Progress, TensorReport, WaitingFor
from masksmith_wire.errors import Code, TensorError
from masksmith_wire.headers import PREFIX_BYTES, Header, header_length, parse_header
from masksmith_wire.masks import MaskInfo, file_header, pack

QUICK = RetryPolicy(retries=3, first_s=0.001, longest_s=0.002, outage_s=300.0)
Fault = Callable[[httpx2.Request], httpx2.Response]


class Pieces(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that may break off."""

    def __init__(self, *pieces: bytes, cut: bool = False) -> None:
        self._pieces, self._cut = pieces, cut

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        if self._cut:
            raise httpx2.ReadError("connection reset")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


class RequestError(Exception):
    """What the fake service refuses."""

    def __init__(self, status: int, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail


class FakeService:
    """Answers like the service; every job is done as soon as its masks are looked at."""

    def __init__(self) -> None:
        self.tensors: dict[str, bytes] = {}
        self.jobs: dict[str, Job] = {}
        self.by_key: dict[str, str] = {}
        self.requests: list[httpx2.Request] = []
        self.results: dict[str, bytes] = {}
        self.waiting_for: WaitingFor | None = None
        self.faults: dict[tuple[str, str], list[Fault]] = {}
        self.bad_tensors: set[str] = set()
        self.streams: list[Pieces] = []
        self.wire_version = 1

    def fail(self, method: str, prefix: str, *faults: Fault) -> None:
        """Answer the next requests of this kind with faults."""
        self.faults.setdefault((method, prefix), []).extend(faults)

    def count(self, method: str, prefix: str) -> int:
        """Count the requests of a kind."""
        return sum(request.method == method and request.url.path.startswith(prefix) for request in self.requests)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        for (method, prefix), faults in self.faults.items():
            if request.method == method and request.url.path.startswith(prefix) and faults:
                return faults.pop(0)(request)
        try:
            return self._answer(request)
        except RequestError as error:
            return problem(error.status, error.code, error.detail)

    def header(self, digest: str) -> Header:
        data = self.tensors[digest]
        length = header_length(data)
        return parse_header(data[PREFIX_BYTES : PREFIX_BYTES + length], len(data))

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        parts = request.url.path.strip("/").split("/")
        match request.method, parts:
            case "GET", ["healthz"]:
                return httpx2.Response(200, json={"status": "ok", "wire_version": self.wire_version})
            case "GET", ["readyz"]:
                return problem(503, "no_worker", "no worker is alive")
            case "GET", ["v1", ("workers" | "patterns" | "solvers")]:
                return httpx2.Response(200, json=[])
            case "HEAD", ["v1", "tensors", digest]:
                return httpx2.Response(200 if digest in self.tensors else 404)
            case "PUT", ["v1", "tensors", digest]:
                return self._put(digest, request.content)
            case "POST", ["v1", "jobs"]:
                return self._post(MasksRequest.model_validate_json(request.content), request.headers["idempotency-key"])
            case "GET", ["v1", "jobs"]:
                return self._list(request)
            case _, ["v1", "jobs", job, *rest]:
                return self._job(request, job, "/".join(rest))
        raise RequestError(404, Code.NOT_FOUND, "nothing here")

    def _put(self, digest: str, content: bytes) -> httpx2.Response:
        if blake3(content).hexdigest() != digest:
            raise RequestError(400, Code.DIGEST_MISMATCH, "digest mismatch")
        self.tensors[digest] = content
        return httpx2.Response(201, json={"digest": digest, "bytes": len(content), "tensors": ["weight"]})

    def _post(self, request: MasksRequest, key: str) -> httpx2.Response:
        if key not in self.by_key:
            for tensor in request.tensors:
                if tensor.digest not in self.tensors:
                    raise RequestError(422, Code.UPLOAD_NOT_FOUND, f"{tensor.name} is not here")
            self.by_key[key] = self._create(request)
        job = self.jobs[self.by_key[key]]
        return httpx2.Response(202, content=job.model_dump_json(), headers={"location": f"/v1/jobs/{job.id}"})

    def _create(self, request: MasksRequest) -> str:
        job = f"job{len(self.jobs)}"
        reports = [
            self._report(tensor.name, tensor.digest, tensor.key, tensor.pattern).model_copy(
                update={"layout": tensor.layout}
            )
            for tensor in request.tensors
        ]
        self.jobs[job] = Job(
            id=job,
            name=request.name,
            labels=request.labels or {},
            state=JobState.QUEUED,
            pattern=request.pattern,
            solver=request.solver,
            created_at=datetime.now(UTC),
            waiting_for=self.waiting_for,
            progress=Progress(done=0, total=len(reports)),
            tensors=reports,
        )
        return job

    def _report(self, name: str, digest: str, key: str, pattern: str | None) -> TensorReport:
        shape = list(self.header(digest).tensors[key].shape)
        if name in self.bad_tensors:
            error = TensorError(code=Code.INVALID_SCORES, message=f"tensor {name!r}: NaN at [0, 1]", index=[0, 1])
            return TensorReport(name=name, state=JobState.FAILED, shape=shape, error=error)
        return TensorReport(
            name=name, state=JobState.SUCCEEDED, shape=shape, status="optimal", objective=3.0, upper_bound=3.0, gap=0.0,
            retained=0.75, density=0.5, solve_s=0.1, solver="exact", device="cpu", pattern=pattern,
        )  # fmt: skip

    def finish(self, job: str) -> Job:
        document = self.jobs[job]
        state = JobState.FAILED if any(report.error for report in document.tensors) else JobState.SUCCEEDED
        done = Progress(done=document.progress.total, total=document.progress.total)
        if not document.state.is_terminal:
            self.jobs[job] = document.model_copy(update={"state": state, "progress": done})
        return self.jobs[job]

    def _list(self, request: httpx2.Request) -> httpx2.Response:
        ids = sorted(self.jobs, reverse=True)
        after, limit = request.url.params.get("after"), int(request.url.params["limit"])
        ids = [job for job in ids if after is None or job < after]
        page = [self.jobs[job].model_dump(mode="json") for job in ids[:limit]]
        return httpx2.Response(200, json={"jobs": page, "next": ids[limit - 1] if len(ids) > limit else None})

    def _job(self, request: httpx2.Request, job: str, what: str) -> httpx2.Response:
        if job not in self.jobs:
            raise RequestError(404, Code.JOB_NOT_FOUND, f"there is no job {job!r}; GET /v1/jobs lists them")
        match request.method, what:
            case "GET", "":
                return httpx2.Response(200, content=self.jobs[job].model_dump_json())
            case "GET", "events":
                return httpx2.Response(200, stream=self.streams.pop(0) if self.streams else self._all_events(job))
            case "GET", "masks":
                return httpx2.Response(200, stream=Pieces(self.masks_file(job)))
            case "GET", _ if what in self.results:
                return httpx2.Response(200, content=self.results[what])
            case "POST", "cancel":
                self.jobs[job] = self.jobs[job].model_copy(update={"state": JobState.CANCELED})
                return httpx2.Response(200, content=self.jobs[job].model_dump_json())
            case "DELETE", "":
                del self.jobs[job]
                return httpx2.Response(204)
        raise RequestError(404, Code.NOT_FOUND, "nothing here")

    def _all_events(self, job: str) -> Pieces:
        document = self.finish(job)
        return Pieces(
            event("1-0", "state", state="queued"),
            event("2-0", "progress", done=document.progress.total, total=document.progress.total),
            event("3-0", "state", state=document.state.value),
        )

    def masks_file(self, job: str) -> bytes:
        document = self.jobs[job]
        if not document.state.is_terminal:
            raise RequestError(409, Code.JOB_NOT_FINISHED, "wait for it")
        good = [report for report in document.tensors if report.error is None]
        infos = {
            report.name: MaskInfo(
                shape=report.shape,
                pattern=report.pattern or document.pattern,
                axes=None if report.layout is None else report.layout.axes,
            )
            for report in good
        }
        return file_header(infos) + b"".join(pack(allowed_mask(info)).tobytes() for info in infos.values())


def some_mask(shape: list[int]) -> Any:
    """Every other entry, in memory order."""
    return (np.arange(np.prod(shape)) % 2 == 0).reshape(shape)


def allowed_mask(info: MaskInfo) -> Any:
    """Every other entry where the pattern allows that, else any mask that it allows."""
    mask = some_mask(info.shape)
    pattern = ms.parse(info.pattern, axis=info.axis, ragged=info.ragged)
    is_allowed = ms.verify(mask, pattern, layout=info.layout).ok
    return mask if is_allowed else np.asarray(ms.solve(np.ones(info.shape), pattern, layout=info.layout).mask)


def event(identifier: str, kind: str, **data: Any) -> bytes:
    """An event as it travels."""
    return f"event: {kind}\nid: {identifier}\ndata: {json.dumps(data)}\n\n".encode()


def problem(status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> httpx2.Response:
    """A problem document."""
    document = {"title": code, "status": status, "code": code, "detail": detail}
    return httpx2.Response(status, json=document, headers=headers)


def busy(request: httpx2.Request) -> httpx2.Response:
    """The service is full for a moment."""
    return problem(503, "broker_unavailable", "the broker does not answer", {"retry-after": "0"})


def refused(request: httpx2.Request) -> httpx2.Response:
    """Nobody listens."""
    raise httpx2.ConnectError("connection refused")


def reset(request: httpx2.Request) -> httpx2.Response:
    """The connection breaks while the request is being sent."""
    raise httpx2.WriteError("broken pipe")


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def client(service: FakeService) -> Iterator[Client]:
    with Client("http://service", retry=QUICK, transport=httpx2.MockTransport(service)) as client:
        yield client


@pytest.fixture
def async_client(service: FakeService) -> AsyncClient:
    return AsyncClient("http://service", retry=QUICK, transport=httpx2.MockTransport(service))


@pytest.fixture
def weights() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    return {"a": generator.normal(size=(8, 8)).astype(np.float32), "b": generator.normal(size=(4, 12))}


@pytest.fixture
def connected(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect commands to the service in memory."""

    def fake(url: str | None = None, **_: Any) -> Client:
        return Client(url or "http://service", retry=QUICK, transport=httpx2.MockTransport(service))

    for module in (_client, service_commands):
        monkeypatch.setattr(module, "Client", fake)
