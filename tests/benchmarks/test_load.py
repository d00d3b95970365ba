"""The load benchmark ends with its failures in the report, and sends no file twice."""

import argparse
import asyncio
import http.server
import os
import threading
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    # The process that polls imports the module anew.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(BENCHMARKS), os.environ.get("PYTHONPATH", "")]))
    import load

    return load


@pytest.fixture
def failing_service():
    """A service that answers every second poll with 503."""
    answers = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            answers.append(200 if len(answers) % 2 else 503)
            self.send_response(answers[-1])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", answers
        server.shutdown()
        thread.join()


def test_polls_that_fail_are_counted(load, failing_service):
    url, answers = failing_service
    with load.polled(url, "job") as polls:
        while len(answers) < 4:
            time.sleep(0.01)
    assert len(polls.failures) + len(polls.seconds) == len(answers)
    assert set(polls.failures) == {"poll: status 503"}
    assert polls.seconds


def test_a_process_that_ends_while_it_polls_is_not_waited_for(load):
    with pytest.raises(RuntimeError, match="the process that polls ended with exit code 1"), load.polled("x:y", "job"):
        pass


def report(load, result, memory, polls):
    arguments = argparse.Namespace(clients=1, models=0, model_mib=1, seconds=1)
    return load.report(arguments, result, memory, polls, polls, dict.fromkeys(load.PARTS, 1.0), 1.0)


def test_failures_are_in_the_report_if_no_job_succeeded(load):
    memory = [dict.fromkeys(load.PARTS, 1.0)] * 4
    text, is_within_limits = report(load, load.Load(0.0, failures=["HTTP 500 nan"]), memory, [0.1])
    assert not is_within_limits
    assert "- HTTP 500 nan\n" in text
    assert "| seconds from sending a layer to its report, median and p99 | -, - |" in text
    assert "median 100.0 ms, p99 - ms" in text


def test_without_samples_of_the_memory_the_limit_does_not_hold(load):
    text, is_within_limits = report(load, load.Load(0.0), [], [0.1, 0.2])
    assert not is_within_limits
    assert "- MiB after a quarter of the time, - MiB since" in text


def test_no_file_is_sent_twice_and_only_finished_models_count(load, monkeypatch):
    sent = []

    async def solve(self, client, pattern, content):
        sent.append(content if isinstance(content, bytes) else b"".join([part async for part in content]))
        if len(sent) % 3 == 0:
            self.until = 0.0
        return len(sent) % 3 != 0

    monkeypatch.setattr(load.Load, "_solve", solve)
    for run in (0, 1):
        for number in (0, 1):
            loads = [load.Load(float("inf"), run) for _ in range(2)]
            asyncio.run(loads[0].small(None, number))
            asyncio.run(loads[1].model(None, number, 1))
            assert (loads[1].models, loads[1].sent_bytes) == (2, 2 * load.MIB)
    assert len(set(sent)) == len(sent) == 24
