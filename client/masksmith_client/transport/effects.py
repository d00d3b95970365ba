"""Effects: the I/O that operations need, as plain values.

An operation is a generator that yields effects and returns a value. `Driver` executes effects with blocking calls,
`AsyncDriver` with asyncio, so each operation is written once. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, BinaryIO, Generic, TypeVar

import httpx2

from .calls import Call

T = TypeVar("T")


class Effect(Generic[T]):
    """Work for a driver; `yield from effect` yields it once and gives the driver's result."""

    __slots__ = ()

    def __iter__(self) -> Generator[Effect[Any], Any, T]:
        result: T = yield self
        return result


Operation = Generator[Effect[Any], Any, T]


@dataclass(slots=True)
class Stream:
    """A response whose body has not been read; `lines` is an iterator of the driver's kind."""

    response: httpx2.Response
    lines: Any


@dataclass(frozen=True, slots=True)
class Send(Effect[httpx2.Response]):
    """Send a request once and read the response."""

    call: Call[Any]


@dataclass(frozen=True, slots=True)
class Open(Effect[Stream]):
    """Send a request once; read the body only of an error response.

    Attributes:
        call: The request.
        silence_s: Read timeout, instead of the client's own.
    """

    call: Call[Any]
    silence_s: float | None = None


@dataclass(frozen=True, slots=True)
class ReadLine(Effect[str | None]):
    """Read the next line of a stream; None at its end."""

    stream: Stream


@dataclass(frozen=True, slots=True)
class Copy(Effect[None]):
    """Write the body of a stream to a file."""

    stream: Stream
    file: BinaryIO


@dataclass(frozen=True, slots=True)
class Close(Effect[None]):
    """Close a stream."""

    stream: Stream


@dataclass(frozen=True, slots=True)
class Sleep(Effect[None]):
    """Pause."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Block(Effect[T]):
    """Call a function that may read files or compute for long; asyncio calls it in a thread."""

    function: Callable[[], T]


@dataclass(frozen=True, slots=True)
class Gather(Effect[list[T]]):
    """Execute operations concurrently, at most `parallel` at a time; the first error stops the others."""

    operations: Sequence[Operation[T]]
    parallel: int


@dataclass(frozen=True, slots=True)
class Emit(Effect[None]):
    """Give a value to the caller, who iterates over the operation."""

    value: Any


class Execution(Generic[T]):
    """Executes an operation step by step.

        while (effect := execution.effect) is not None:
            with execution:
                execution.reply = ...  # the result of `effect`; what is raised here is raised in the operation

    An exception of any kind is raised where the operation yielded the effect, so its cleanup can yield further effects.

    Attributes:
        effect: The effect to execute next; None when the operation has returned.
        reply: The result of that effect.
        result: What the operation returned.
    """

    result: T

    def __init__(self, operation: Operation[T]) -> None:
        self._operation = operation
        self.effect: Effect[Any] | None = None
        self.reply: Any = None
        self._advance(partial(next, operation))

    def __enter__(self) -> None:
        self.reply = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        operation = self._operation
        self._advance(partial(operation.send, self.reply) if error is None else partial(operation.throw, error))
        return True

    def _advance(self, step: Callable[[], Effect[Any]]) -> None:
        try:
            self.effect = step()
        except StopIteration as end:
            self.effect, self.result = None, end.value


def tapped(operation: Operation[T], listener: Callable[[Any], None]) -> Operation[T]:
    """Execute an operation and pass what it emits to a function instead of the caller."""
    execution = Execution(operation)
    while (effect := execution.effect) is not None:
        with execution:
            if isinstance(effect, Emit):
                listener(effect.value)
            else:
                execution.reply = yield effect
    return execution.result
