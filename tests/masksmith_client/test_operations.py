"""Operations executed by hand, without network, clock or threads."""

from typing import Any

import httpx2
import pytest

from masksmith_client import NotFound, RateLimited, RetryPolicy, TransportError
from masksmith_client.transport import calls
from masksmith_client.transport.effects import (
    Block,
    Close,
    Copy,
    Effect,
    Emit,
    Execution,
    Gather,
    Open,
    Operation,
    Send,
    Sleep,
    Stream,
    tapped,
)
from masksmith_client.transport.session import Session
from masksmith_client.transport.settings import Settings
from masksmith_wire.errors import Problem

from .conftest import problem

POLICY = RetryPolicy(retries=2, first_s=1.0, longest_s=1.0)
REQUEST = httpx2.Request("GET", "http://service/v1/jobs/x")
GOOD = httpx2.Response(200, json=[], request=REQUEST)
STREAM = Stream(GOOD, iter(()))
CALL = calls.get_capabilities("patterns")


@pytest.fixture
def session() -> Session:
    return Session(Settings("http://service"), POLICY)


def answer(status: int, **headers: str) -> httpx2.Response:
    response = problem(
        status, "some_code", "the reason", {name.replace("_", "-"): text for name, text in headers.items()}
    )
    response.request = REQUEST
    return response


class Player:
    """Executes an operation with ready replies, exceptions among them; pauses and closing need none."""

    def __init__(self, *replies: Any) -> None:
        self.effects: list[Effect[Any]] = []
        self._replies = list(replies)

    def run(self, operation: Operation[Any]) -> Any:
        execution = Execution(operation)
        while (effect := execution.effect) is not None:
            self.effects.append(effect)
            with execution:
                if not isinstance(effect, (Sleep, Close)):
                    execution.reply = self._replies.pop(0)
                if isinstance(execution.reply, BaseException):
                    raise execution.reply
        assert not self._replies
        return execution.result

    def kinds(self) -> list[type[Effect[Any]]]:
        return [type(effect) for effect in self.effects]

    def pauses(self) -> list[float]:
        return [effect.seconds for effect in self.effects if isinstance(effect, Sleep)]


def test_a_call_is_sent_again_until_it_is_answered(session: Session) -> None:
    player = Player(answer(503), httpx2.ReadError("reset"), GOOD)
    assert player.run(session.send(CALL)) == []
    assert player.kinds() == [Send, Sleep, Send, Sleep, Send]
    assert all(0.5 <= pause <= 1.0 for pause in player.pauses())
    assert session.reached


def test_a_retry_after_is_waited_for_exactly(session: Session) -> None:
    player = Player(answer(429, retry_after="7"), GOOD)
    player.run(session.send(CALL))
    assert player.pauses() == [7.0]


@pytest.mark.parametrize(
    ("replies", "kind"),
    [
        ([answer(404)], NotFound),
        ([answer(429, retry_after="3600")], RateLimited),
        ([httpx2.ReadError("reset")] * 3, TransportError),
    ],
    ids=["not found", "an hour", "too often"],
)
def test_errors_that_stay_end_the_call(session: Session, replies: Any, kind: type[Exception]) -> None:
    player = Player(*replies)
    with pytest.raises(kind):
        player.run(session.send(CALL))
    assert player.kinds().count(Send) == len(replies)


@pytest.mark.parametrize("error", [httpx2.ReadError("reset"), None], ids=["reset", "short"])
def test_a_download_that_is_cut_begins_again_and_closes_its_streams(session: Session, error: Exception | None) -> None:
    player = Player(STREAM, error, STREAM, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        player.run(session.download(calls.get_masks("x")))
    assert player.kinds() == [Open, Copy, Close, Sleep, Open, Copy, Close]
    copy = player.effects[-2]
    assert isinstance(copy, Copy)
    assert copy.file.closed


def emitting() -> Operation[str]:
    yield from Emit(1)
    length = yield from Block(lambda: 5)
    yield from Emit(length)
    return "done"


def test_what_is_emitted_goes_to_the_listener_and_nothing_else() -> None:
    heard: list[int] = []
    player = Player(7)
    assert player.run(tapped(emitting(), heard.append)) == "done"
    assert heard == [1, 7]
    assert player.kinds() == [Block]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_errors_reach_an_operation_through_every_layer_and_it_may_clean_up(kind: type[BaseException]) -> None:
    def operation() -> Operation[None]:
        try:
            yield from Sleep(1.0)
        finally:
            yield from Close(STREAM)

    execution = Execution(tapped(operation(), print))
    with execution:
        raise kind
    assert execution.effect == Close(STREAM)
    with pytest.raises(kind), execution:
        pass


def test_an_error_of_the_listener_ends_the_operation() -> None:
    heard: list[int] = []

    def listener(value: int) -> None:
        heard.append(value)
        raise NotFound(Problem(title="t", status=404, code="not_found", detail="d"))

    with pytest.raises(NotFound):
        Player().run(tapped(emitting(), listener))
    assert heard == [1]


def test_gathered_operations_are_values_until_a_driver_executes_them() -> None:
    gather = Gather([emitting(), emitting()], 2)
    assert [Player(None, 7, None).run(operation) for operation in gather.operations] == ["done", "done"]
