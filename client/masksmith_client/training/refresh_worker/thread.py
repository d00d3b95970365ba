"""Asks from a thread of the training process: for functions that cannot travel, or with waiting."""

from __future__ import annotations

import queue
import threading
from typing import Protocol

from .handler import Answerer
from .messages import Answer, Question


class Asker(Protocol):
    """Somebody who takes a question and has an answer some time later."""

    where: str

    def ask(self, question: Question) -> None:
        """Take a question; the one before must have been answered."""
        ...

    def poll(self) -> Answer | None:
        """Give the answer if it is there; never waits."""
        ...

    def wait(self) -> Answer:
        """Give the answer when it is there."""
        ...

    def close(self) -> None:
        """Stop; a question under way is dropped."""
        ...


class InlineAsker:
    """Answers at once, in the thread that asks."""

    where = "in this process"

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer
        self._question: Question | None = None

    def ask(self, question: Question) -> None:
        """Take a question."""
        self._question = question

    def poll(self) -> Answer | None:
        """Answer it."""
        return None if self._question is None else self.wait()

    def wait(self) -> Answer:
        """Answer it."""
        assert self._question is not None
        question, self._question = self._question, None
        return self._answerer.answer(question)

    def close(self) -> None:
        """There is nothing to stop."""


class ThreadAsker:
    """Answers in a thread that never keeps the process from ending."""

    where = "a thread"

    def __init__(self, answerer: Answerer) -> None:
        self._questions: queue.SimpleQueue[Question | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        arguments = (answerer, self._questions, self._answers)
        threading.Thread(target=_answer_all, args=arguments, name="masksmith-training", daemon=True).start()

    def ask(self, question: Question) -> None:
        """Take a question."""
        self._questions.put(question)

    def poll(self) -> Answer | None:
        """Give the answer if it is there."""
        try:
            return self._answers.get_nowait()
        except queue.Empty:
            return None

    def wait(self) -> Answer:
        """Give the answer when it is there."""
        return self._answers.get()

    def close(self) -> None:
        """End the thread once it has answered."""
        self._questions.put(None)


def _answer_all(
    answerer: Answerer, questions: queue.SimpleQueue[Question | None], answers: queue.SimpleQueue[Answer]
) -> None:
    while (question := questions.get()) is not None:
        answers.put(answerer.answer(question))
