"""Asks from a process of its own, so that nothing of it runs beside the training loop.

Questions and answers are lines of JSON over pipes; weights and masks lie in memory that both processes share.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import weakref
from collections.abc import Sequence

from .client_configuration import Recipe, Start
from .messages import Answer, Question
from .shared_memory import Memory

PIECE_BYTES = 2**16
GRACE_S = 2.0


class ProcessAsker:
    """Starts `python -m masksmith_client.training.refresh_worker`, and again if it was killed."""

    where = "a process"

    def __init__(self, recipe: Recipe, memory: Memory, cores: Sequence[int] | None) -> None:
        self._start = Start(
            recipe=recipe,
            slots=list(memory.slots.values()),
            fd=memory.fd,
            cores=None if cores is None else list(cores),
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[..., ProcessAsker] | None = None
        self._step = 0
        self._trouble = ""
        self._read = b""

    @property
    def pid(self) -> int | None:
        """The process that asks, once it has been started."""
        return None if self._process is None else self._process.pid

    def ask(self, question: Question) -> None:
        """Hand a question over; a process that is gone is replaced first."""
        self._step = question.step
        if self._process is None or self._process.poll() is not None:
            self._begin()
        if self._process is not None:
            self._send(question.model_dump_json())

    def poll(self) -> Answer | None:
        """Give the answer if it is there."""
        return self._answer(0.0)

    def wait(self) -> Answer:
        """Give the answer when it is there."""
        while (answer := self._answer(None)) is None:
            pass
        return answer

    def close(self) -> None:
        """End the process."""
        if self._end is not None:
            self._end()

    def _begin(self) -> None:
        self.close()
        self._read = b""
        try:
            # In a session of its own, Ctrl-C reaches it through the end of its input, not in the middle of something.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "masksmith_client.training.refresh_worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[self._start.fd], start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            # A machine without room for a process must not end the training.
            self._process, self._trouble = None, f"the process that asks cannot be started: {error}"
            return
        self._end = weakref.finalize(self, _stop, self._process)
        self._send(self._start.model_dump_json())

    def _send(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        # A process that is gone shows when its answer is read.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def _answer(self, patience_s: float | None) -> Answer | None:
        if self._process is None:
            return Answer(step=self._step, failure=self._trouble)
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        if not select.select([output], [], [], patience_s)[0]:
            return None
        piece = os.read(output, PIECE_BYTES)
        if not piece:
            code = self._process.wait()
            return Answer(step=self._step, failure=f"the process that asks ended (exit code {code})")
        line, newline, rest = (self._read + piece).partition(b"\n")
        self._read = rest if newline else line
        return Answer.model_validate_json(line) if newline else None


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
