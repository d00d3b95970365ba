"""Operations with a session that does no I/O: its answers are ready, and it writes down what it was to do."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, BinaryIO

import httpx2
import pytest

from masksmith_client import NotFound, RateLimited, RetryPolicy, TimeoutError, TransportError
from masksmith_client._job_view import JobView
from masksmith_client.operations.jobs import list_jobs, wait
from masksmith_client.transport import calls
from masksmith_client.transport.blocking_session import BlockingSession
from masksmith_client.transport.limits import LimitedFile
from masksmith_client.transport.session import ServiceSession
from masksmith_client.transport.settings import ConnectionSettings
from masksmith_wire.masks import MaskInfo, file_header

from .conftest import problem

REQUEST = httpx2.Request("GET", "http://service/v1/jobs/x")
GOOD = httpx2.Response(200, json=[], request=REQUEST)
FILE = file_header({"a": MaskInfo(shape=[4, 4], pattern="2:4")}) + bytes(4)
CALL = calls.get_capabilities("patterns")


class Script(ServiceSession):
    """Gives ready answers, exceptions among them; `done` has every step."""

    def __init__(self, *answers: Any) -> None:
        super().__init__(ConnectionSettings("http://service"), RetryPolicy(retries=2, first_s=1.0, longest_s=1.0))
        self.answers = list(answers)
        self.done: list[Any] = []
        self.files: list[BinaryIO] = []

    async def _exchange(self, call: calls.Call[Any]) -> httpx2.Response:
        self.done.append(call.path)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[no-any-return]

    @asynccontextmanager
    async def _stream(
        self, call: calls.Call[Any], read_timeout_s: float | None = None
    ) -> AsyncIterator[httpx2.Response]:
        try:
            yield await self._exchange(call)
        finally:
            self.done.append("closed")

    async def _lines(self, response: httpx2.Response) -> AsyncGenerator[str, None]:
        for line in response.text.splitlines():
            yield line

    async def _write(self, response: httpx2.Response, file: LimitedFile) -> None:
        self.files.append(file.file)
        file.write(response.content)

    async def sleep(self, seconds: float) -> None:
        self.done.append(seconds)

    async def run_blocking(self, function: Callable[[], Any]) -> Any:
        return function()

    async def gather(
        self,
        operation: Callable[[ServiceSession, Any], Coroutine[Any, Any, Any]],
        arguments: Sequence[Any],
        parallel: int,
    ) -> list[Any]:
        return [await operation(self, argument) for argument in arguments]

    def run(self, operation: Coroutine[Any, Any, Any]) -> Any:
        with pytest.raises(StopIteration) as end:
            operation.send(None)
        return end.value.value

    def run_to_error(self, operation: Coroutine[Any, Any, Any]) -> None:
        operation.send(None)

    @property
    def pauses(self) -> list[float]:
        return [step for step in self.done if isinstance(step, float)]


def answer(status: int, **headers: str) -> httpx2.Response:
    response = problem(status, "some_code", "why", {name.replace("_", "-"): text for name, text in headers.items()})
    response.request = REQUEST
    return response


def body(content: bytes) -> httpx2.Response:
    return httpx2.Response(200, content=content, request=REQUEST)


def test_a_call_is_sent_again_until_it_is_answered() -> None:
    script = Script(answer(503), httpx2.ReadError("reset"), GOOD)
    assert script.run(script.send(CALL)) == []
    assert [step for step in script.done if step not in script.pauses] == [CALL.path] * 3
    assert len(script.pauses) == 2
    assert all(0.5 <= pause <= 1.0 for pause in script.pauses)


def test_a_retry_after_is_waited_for_exactly() -> None:
    script = Script(answer(429, retry_after="7"), GOOD)
    script.run(script.send(CALL))
    assert script.pauses == [7.0]


def job_document(**members: Any) -> httpx2.Response:
    document = {
        "id": "00ab", "kind": "masks", "state": "running", "pattern": "2:4", "solver": "auto", "scores": "magnitude",
        "created_at": "2024-01-01T00:00:00Z", "progress": {"done": 0, "total": 1}, "tensors": [], "position": None,
    }  # fmt: skip
    return httpx2.Response(200, json=document | members, request=REQUEST)


@pytest.mark.parametrize("failure", [answer(503, retry_after="50"), httpx2.ConnectError("refused")])
@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_wait_ends_at_its_timeout_if_the_service_is_away(failure: Any, state: str) -> None:
    """The pauses of its requests add up to the timeout, although the policy allows longer ones."""
    current = job_document(state=state, position={"jobs_ahead": 1})
    script = Script(current, failure, failure, failure, failure)
    script.policy = RetryPolicy(first_s=40.0, longest_s=40.0, outage_s=1000.0)
    job = JobView(script.run(script.send(calls.get_job("00ab"))))
    with pytest.raises(TimeoutError, match="timeout after a failed attempt: "):
        script.run_to_error(wait(script, job, 10.0, "lines"))
    assert sum(script.pauses) <= 10.0 + 0.05  # a poll's pause passes on no clock here
    assert script.pauses[-1] > 9.0


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([answer(404)], NotFound),
        ([answer(429, retry_after="3600")], RateLimited),
        ([httpx2.ReadError("reset")] * 3, TransportError),
    ],
    ids=["not found", "an hour", "too often"],
)
def test_errors_that_stay_end_the_call(answers: Any, kind: type[Exception]) -> None:
    script = Script(*answers)
    with pytest.raises(kind):
        script.send(CALL).send(None)
    assert script.done.count(CALL.path) == len(answers)
    assert not script.answers


def test_a_download_that_is_cut_begins_again_and_closes_every_stream() -> None:
    script = Script(body(FILE[:-1]), httpx2.ReadError("reset"), body(FILE))
    file = script.run(script.download(calls.get_masks("x"), 10**6))
    path, closed = "/v1/jobs/x/masks", "closed"
    assert [step for step in script.done if step not in script.pauses] == [path, closed] * 3
    file.seek(0)
    assert file.read() == FILE
    file.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), answer(404)], ids=["interrupted", "refused"])
def test_a_download_that_ends_without_a_file_leaves_none_open(error: Any) -> None:
    script = Script(body(FILE[:-1]), error)
    with pytest.raises((KeyboardInterrupt, NotFound)):
        script.download(calls.get_masks("x"), 10**6).send(None)
    assert [file.closed for file in script.files] == [True]


def test_pages_are_fetched_only_when_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    page = {"jobs": [], "next": "00ab"}
    script = Script(httpx2.Response(200, json=page, request=REQUEST), answer(404))
    with pytest.raises(NotFound):
        list_jobs(script, None, {}).__anext__().send(None)
    assert script.done == ["/v1/jobs", "/v1/jobs"]


def test_an_operation_that_would_wait_for_an_event_loop_is_an_error_of_the_blocking_session() -> None:
    class Loop:
        def __await__(self) -> Any:
            yield

    async def suspended() -> None:
        await Loop()

    session = BlockingSession(ConnectionSettings("http://service"), RetryPolicy(), httpx2.Client())
    with pytest.raises(RuntimeError, match="awaited something other than its session"):
        session.run(suspended())
    session.close()


def test_no_more_jobs_than_the_limit_are_listed() -> None:
    job = {
        "id": "1", "kind": "masks", "state": "queued", "pattern": "2:4", "solver": "auto",
        "created_at": "2024-01-01T00:00:00Z", "progress": {"done": 0, "total": 1},
    }  # fmt: skip
    script = Script(httpx2.Response(200, json={"jobs": [job, job, job], "next": "1"}, request=REQUEST))

    async def listed() -> list[str]:
        return [summary.id async for summary in list_jobs(script, 2, {})]

    assert script.run(listed()) == ["1", "1"]
