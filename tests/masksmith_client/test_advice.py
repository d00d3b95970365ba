"""Messages of the service and of the client, as the command line prints them."""

from types import SimpleNamespace

import numpy as np
import pytest

from masksmith_client import Client, InputError, TimeoutError
from masksmith_client.checkpoints import remote
from masksmith_client.cli.advice import advise_commands
from masksmith_client.cli.app import explain, run
from masksmith_client.submission.statistics import AuxiliaryTensors, Statistic
from masksmith_client.submission.streamed_tensor import StreamedTensor
from masksmith_client.transport.events import Deadline
from masksmith_service.auth.keys import revoke_key
from masksmith_service.benchmarks.reports import read_report
from masksmith_service.errors import RequestError, translate, upload_damaged_error
from masksmith_service.jobs.access import check_ended, job_not_found_error
from masksmith_service.jobs.results import weights_file
from masksmith_service.jobs.upload_headers import upload_missing_error
from masksmith_state.errors import NoMasksError
from masksmith_state.jobs.model import JobRecord
from masksmith_wire.documents import JobState

ID = "1a2274c54da273d24904c7f6174"
RECORD = JobRecord(id=ID, kind="masks", state=JobState.RUNNING, created_at="2026-01-01T00:00:00Z", done=0, total=1)
WITHOUT_UPDATE = SimpleNamespace(id=ID, plan=SimpleNamespace(options=SimpleNamespace(update=None)))
NO_KEYS = SimpleNamespace(revoke=lambda key: False)


def refusal(call):
    with pytest.raises(RequestError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (job_not_found_error("nope"), "there is no job 'nope'; 'masksmith jobs list' lists them"),
        (refusal(lambda: check_ended(RECORD)), f"job {ID} is running; 'masksmith jobs watch {ID}' waits for it"),
        (refusal(lambda: read_report(RECORD, None)), "is not a benchmark; 'masksmith jobs masks' downloads its masks"),
        (translate(NoMasksError(ID, "benchmark")), f"'masksmith jobs report {ID}' shows its results"),
        (refusal(lambda: revoke_key("eve", NO_KEYS)), "there is no key 'eve'; 'masksmith keys list' lists them"),
        (
            refusal(lambda: weights_file(WITHOUT_UPDATE, None)),
            "updates no weights; 'masksmith solve --update reconstruct' or",
        ),
        (upload_missing_error("0" * 64), "does not exist; the same command sends it again"),
        (upload_damaged_error("0" * 64), "is damaged in the store; the same command sends it again"),
    ],
)
def test_requests_become_commands(error, words):
    message = advise_commands(error.detail)
    assert words in message
    assert not any(word in message for word in ("/v1/", "GET ", "PUT "))


def test_python_becomes_a_command(client: Client):
    job = client.jobs.submit({"a": np.ones((8, 8))}, "2:4")
    with pytest.raises(TimeoutError) as caught:
        Deadline(0.0).check(job.document)
    message, _ = explain(caught.value)
    assert message is not None
    assert f"'masksmith jobs watch {job.id}' waits for it" in message
    assert "client." not in message


def test_activations_that_are_too_large_are_refused_in_python_and_at_the_command_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remote, "WHOLE_BYTES", 100)
    tensor = StreamedTensor("w/activations", "F32", (8, 8), lambda: iter(()))
    statistics = AuxiliaryTensors({"w": Statistic("activations", tensor)})
    with pytest.raises(InputError) as caught:
        remote._check_activations(statistics)
    assert str(caught.value).endswith("use 'masksmith prune --local', or leave the tensor out with exclude=")
    assert str(explain(caught.value)[0]).endswith("leave the tensor out with --exclude")


@pytest.mark.usefixtures("connected")
def test_commands_print_it(capsys):
    assert run(["jobs", "show", "nope"]) == 2
    assert (
        capsys.readouterr().err
        == "masksmith: there is no job 'nope'; 'masksmith jobs list' lists them (job_not_found)\n"
    )
    assert run(["jobs", "list", "--state", "lost"]) == 2
    assert capsys.readouterr().err.startswith("masksmith: Invalid value for '--state': 'lost' is not one of 'queued'")
