import re
import time
from typing import Any

import httpx2
import numpy as np
import pytest

from masksmith_client import Client, _progress
from masksmith_client._progress import Bar
from masksmith_wire.documents import JobState, QueuePosition

from .conftest import FakeService


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_progress, "LINE_PERIOD_S", 0.001)


def printed(capsys: Any, pattern: str) -> str:
    """What is printed until this pattern is found in it."""
    output, deadline = "", time.monotonic() + 60
    while not re.search(pattern, output):
        assert time.monotonic() < deadline, output
        time.sleep(0.001)
        output += capsys.readouterr().err
    return output


def test_lines_where_there_is_no_terminal(capsys: Any) -> None:
    with Bar("solving", 3, show="lines") as bar:
        assert re.match(r"solving: 0 of 3 shards, \d+ s\n", printed(capsys, r"s\n"))
        bar.advance(1)
        printed(capsys, "solving: 1 of 3 shards, ")
        bar.move_to(1, 1)
        printed(capsys, "solving: 1 of 1 shard, ")
    capsys.readouterr()
    time.sleep(0.02)
    assert capsys.readouterr().err == ""


def test_lines_say_how_long_the_rest_takes_at_the_rate_of_this_run() -> None:
    bar = Bar("pruning", 8_000_000, show="lines", unit="weight", start=2_000_000)
    assert bar._time_left(30.0) == ""
    bar.advance(2_000_000)
    assert bar._time_left(30.0) == ", about 60 s left"
    assert bar._amount() == "4,000,000 of 8,000,000 weights"
    bar.advance(4_000_000)
    assert bar._time_left(90.0) == ""


def test_lines_of_bytes(capsys: Any) -> None:
    with Bar("uploading", 3 * 2**20, show="lines", in_bytes=True) as bar:
        bar.advance(2**20)
        printed(capsys, "uploading: 1 MiB of 3 MiB, ")


def test_bars_of_a_terminal_have_the_texts_of_lines(capsys: Any) -> None:
    with Bar("uploading", 3 * 2**20, show=True, in_bytes=True) as bar:
        bar.advance(2**20 + 2**19)
        bar.move_to(2**21, 2**21)
        bar._bar.refresh()
        shown = printed(capsys, "100%")
    assert re.search(r"uploading:   0%\|          \| 0 B of 3 MiB, \d+ s", shown)
    assert re.search(r"\| 2 MiB of 2 MiB, \d+ s", shown)


def test_a_note_replaces_a_count_that_is_not_known(capsys: Any) -> None:
    with Bar("measuring", 0, show="lines", unit="case", note="compiling kernels") as bar:
        printed(capsys, r"measuring: compiling kernels, \d+ s\n")
        bar.note("")
        bar.move_to(1, 1200)
        printed(capsys, "measuring: 1 of 1,200 cases, ")


@pytest.mark.parametrize("show", [None, False])
def test_no_lines_without_being_told(capsys: Any, show: Any) -> None:
    with Bar("solving", 3, show=show) as bar:
        bar.advance(1)
        time.sleep(0.02)
    assert capsys.readouterr().err == ""


def test_waiting_for_a_job_prints_lines(client: Client, service: FakeService, capsys: Any) -> None:
    job = client.jobs.submit({"a": np.ones((8, 8))}, "2:4", progress=False)
    job.wait(progress="lines", on_event=lambda event: printed(capsys, "solving: ") if event.progress else None)


def test_a_queued_job_says_what_is_ahead_of_it(client: Client, service: FakeService, capsys: Any) -> None:
    job = client.jobs.submit({"a": np.ones((8, 8))}, "2:4", progress=False)
    queued = service.jobs[job.id].model_copy(update={"position": QueuePosition(jobs_ahead=2, starts_in_s=12.0)})
    job.document = service.jobs[job.id] = queued
    polls = 0

    def read(request: httpx2.Request) -> httpx2.Response:
        nonlocal polls
        polls += 1
        if polls > 6:
            printed(capsys, "solving: queued: 2 jobs ahead, starts in about 12 s, ")
            service.jobs[job.id] = queued.model_copy(update={"state": JobState.RUNNING, "position": None})
        return httpx2.Response(200, content=service.jobs[job.id].model_dump_json())

    service.fail("GET", f"/v1/jobs/{job.id}", *[read] * 7)
    job.wait(progress="lines")
    assert polls == 7
    assert job.state is JobState.SUCCEEDED
