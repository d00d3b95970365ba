"""The process that asks: reads questions, answers them, and ends with its input."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading

from .client_configuration import Start
from .handler import Answerer
from .messages import Question
from .shared_memory import Memory

NICENESS = 10
"""The library solves on all cores; training goes first."""


def main() -> None:
    """Read questions until there are no more; the work is done beside, lest the end of the input go unnoticed."""
    # Trouble is told in the answers.
    logging.getLogger("masksmith_client").setLevel(logging.ERROR)
    given = Start.model_validate_json(sys.stdin.readline())
    if given.cores is not None:
        os.sched_setaffinity(0, given.cores)
    if given.recipe.url is None:
        os.nice(NICENESS)
    questions: queue.SimpleQueue[Question] = queue.SimpleQueue()
    threading.Thread(target=_answer_all, args=(given, questions), daemon=True).start()
    for line in sys.stdin:
        questions.put(Question.model_validate_json(line))
    # Without waiting for an upload that is under way: nobody wants its masks any more.
    os._exit(0)


def _answer_all(given: Start, questions: queue.SimpleQueue[Question]) -> None:
    try:
        answerer = Answerer(given.recipe.source(), Memory(given.slots, given.fd))
        while True:
            print(answerer.answer(questions.get()).model_dump_json(), flush=True)  # noqa: T201 - the answer's way
    except BaseException:
        logging.getLogger("masksmith_client.training").exception("the process that asks for masks failed")
        os._exit(1)


if __name__ == "__main__":
    main()
