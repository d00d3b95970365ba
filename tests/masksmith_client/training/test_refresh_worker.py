"""What the refresh process is started with."""

import fcntl
import math
import os
import sys
import threading
from types import SimpleNamespace

import httpx2
import numpy as np
import pytest
import torch
from support.processes import poll
from support.training_loop import perceptron

import masksmith as ms
from masksmith_client import Client, ClientError, InputError, RetryPolicy
from masksmith_client.training import Refresh, Sparsifier
from masksmith_client.training.refresh_worker.messages import LayerResult, RefreshRequest, RefreshResponse
from masksmith_client.training.refresh_worker.process import ProcessWorker
from masksmith_client.training.refresh_worker.shared_memory import LayerSlot, SharedMemory
from masksmith_client.training.refresh_worker.sources import (
    OUTAGE_S,
    FunctionSource,
    ServiceSource,
    WorkerConfiguration,
)
from masksmith_client.training.refresh_worker.thread import InlineWorker, ThreadWorker

SLOT = LayerSlot("a", "F32", (4, 4))


def sent(client):
    start = WorkerConfiguration(client=client, slots=[SLOT], fd=5, cores=[0])
    return WorkerConfiguration.model_validate_json(start.model_dump_json())


@pytest.mark.parametrize("outage_s", [1.0, 500.0, math.inf])
def test_a_client_is_made_again_from_what_was_sent(outage_s):
    retry = RetryPolicy(retries=7, first_s=0.25, outage_s=outage_s)
    with Client("https://masks.example/prefix/", "secret", timeout_s=9.0, retry=retry) as client:
        start = sent(client.configuration)
    assert (start.slots, start.fd, start.cores) == ([SLOT], 5, [0])
    assert start.client == client.configuration
    assert "secret" not in repr(start)
    source = start.create_source()
    assert isinstance(source, ServiceSource)
    again = source.client.configuration
    assert (again.url, again.token, again.timeout_s) == ("https://masks.example/prefix", "secret", 9.0)
    assert (again.retry.retries, again.retry.first_s) == (7, 0.25)
    assert again.retry.outage_s == min(outage_s, OUTAGE_S)
    source.client.close()


def test_without_a_client_the_library_solves():
    source = sent(None).create_source()
    assert isinstance(source, FunctionSource)
    assert np.array_equal(source.call(np.eye(4), ms.parse("1:4")).mask, np.eye(4, dtype=bool))


def test_a_client_with_a_transport_of_its_own_cannot_be_made_again():
    with Client("http://service", transport=httpx2.MockTransport(lambda _: httpx2.Response(404))) as client:
        assert client.configuration is None


REQUEST = RefreshRequest(
    step=3, pattern="2:4", axis="in", ragged="pad", layers=["a"], are_scores=False, hysteresis=0.0, timeout_s=1.0
)


class Panic(BaseException):
    """Raised by libraries in Rust; it is no `Exception`."""


class Handler:
    """Fails at the first request, and handles the others."""

    def __init__(self):
        self.calls = 0

    def handle(self, request):
        self.calls += 1
        if self.calls == 1:
            raise Panic("index out of bounds")
        return RefreshResponse(step=request.step)


@pytest.mark.filterwarnings("ignore")
def test_a_thread_answers_whatever_a_handler_raises():
    worker = ThreadWorker(Handler())
    for failure in ("Panic: index out of bounds", None):
        worker.submit(REQUEST)
        response = poll(worker.poll)
        assert (response.step, response.failure) == (3, failure)
    worker.close()


def test_a_request_whose_handling_is_interrupted_is_handled_at_the_next_poll():
    worker = InlineWorker(Handler())
    worker.submit(REQUEST)
    with pytest.raises(Panic):
        worker.wait()
    assert worker.poll() == RefreshResponse(step=3)
    assert worker.poll() is None


def test_infinities_and_nan_are_sent_as_they_are():
    response = RefreshResponse(step=1, layers={"a": LayerResult(upper_bound=math.inf, gap=math.nan)})
    result = RefreshResponse.model_validate_json(response.model_dump_json()).layers["a"]
    assert result.upper_bound == math.inf
    assert math.isnan(result.gap)


@pytest.mark.parametrize("cores", [[], [-1], ["a"], [0.5], 3, "01"])
def test_cores_that_are_no_processors_are_refused(cores):
    with pytest.raises(InputError, match=r"refresh: cores=.* must be numbers of processors, such as"):
        Refresh(cores=cores)


@pytest.mark.parametrize("core", [9999, 2**40])
def test_processors_that_the_computer_lacks_are_named(core):
    with pytest.raises(ClientError, match=rf"cannot run on the processors \[{core}\] \(cores of Refresh\): "):
        Sparsifier(perceptron(), "2:4", ms.solve, Refresh(cores=[core]))


@pytest.mark.parametrize("cores", [os.sched_getaffinity(0), np.array(sorted(os.sched_getaffinity(0)))])
def test_cores_may_be_any_collection_of_integers(cores):
    memory = SharedMemory([SLOT])
    worker = ProcessWorker(None, memory, Refresh(cores=cores).cores)
    worker.submit(REQUEST)
    assert worker.wait().failure is None
    worker.close()


def test_a_client_that_the_sparsifier_has_created_is_closed_with_it_and_opened_again(service, monkeypatch):
    created = []

    def create():
        created.append(Client("http://service", transport=httpx2.MockTransport(service)))
        return created[-1]

    def are_closed():
        return [client._session._http.is_closed for client in created]

    monkeypatch.setattr("masksmith_client.training.refresher.Client", create)
    model = perceptron()
    with Sparsifier(model, "2:4", refresh=Refresh(wait=True)) as sparsifier:
        assert are_closed() == [False]
    assert are_closed() == [True]
    model[2].parametrizations.weight.original.data.mul_(torch.randn(32, 32))
    sparsifier.refresh_now()
    assert len(sparsifier.report().refreshes) == 2
    assert are_closed() == [True, False]
    sparsifier.bake()
    assert are_closed() == [True, True]


def test_a_client_that_was_passed_stays_open(service, client):
    Sparsifier(perceptron(), "2:4", client, refresh=Refresh(wait=True)).bake()
    assert not client._session._http.is_closed


def test_sending_does_not_wait_for_a_process_that_is_still_starting(tmp_path, monkeypatch):
    """Configuration and request are larger than a pipe; they are sent on while the response is polled."""
    gate, python = tmp_path / "gate", tmp_path / "python"
    python.write_text(f'#!/bin/sh\nwhile [ ! -e {gate} ]; do sleep 0.05; done\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    names = [f"{number}{'x' * 100}" for number in range(2000)]
    memory = SharedMemory([LayerSlot(name, "F32", (1, 4)) for name in names])
    worker = ProcessWorker(None, memory, None)
    request = REQUEST.model_copy(update={"layers": names, "pattern": "1:4"})
    submitting = threading.Thread(target=worker.submit, args=(request,), daemon=True)
    submitting.start()
    submitting.join(60)
    has_returned = not submitting.is_alive()
    gate.touch()
    assert has_returned
    response = poll(worker.poll)
    assert (response.failure, len(response.layers)) == (None, 2000)
    worker.submit(request.model_copy(update={"step": 4}))
    assert worker.wait().step == 4
    worker.close()


def test_a_response_that_has_arrived_is_read_at_once():
    response = RefreshResponse(step=3, failure="x" * 200_000)
    output, end = os.pipe()
    fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 2**19)
    os.write(end, response.model_dump_json().encode() + b"\n")
    worker = ProcessWorker(None, SharedMemory([SLOT]), None)
    with os.fdopen(output, "rb") as stdout, os.fdopen(end, "wb") as stdin:
        worker._process = SimpleNamespace(stdin=stdin, stdout=stdout)
        assert worker.poll() == response
        assert worker.poll() is None


def test_what_a_library_prints_is_no_response(tmp_path, monkeypatch):
    # A module that Python imports at its start, and that prints at the first product, as a library may do.
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "import pydantic\n"
        "validate = pydantic.BaseModel.model_validate_json.__func__\n"
        "def printing(cls, *arguments, **options):\n"
        "    print('a library prints', flush=True)\n"
        "    os.write(1, b'and its C code, too\\n')\n"
        "    return validate(cls, *arguments, **options)\n"
        "pydantic.BaseModel.model_validate_json = classmethod(printing)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    memory = SharedMemory([SLOT])
    memory.values("a")[:] = np.arange(16, dtype=np.float32).view(np.uint8)
    worker = ProcessWorker(None, memory, None)
    worker.submit(REQUEST)
    response = worker.wait()
    worker.close()
    assert response.failure is None
    assert response.layers["a"].has_new_mask
    assert memory.mask("a").tolist() == [[False, False, True, True]] * 4
