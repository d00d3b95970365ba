"""`Client.prune` with a service in memory that has faults: what is sent, canceled, written and left behind."""

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from masksmith_client import Client, InputError, NotFound, StatusError, TransportError, Unauthorized, WireError
from masksmith_client.checkpoints import partial_file, remote
from masksmith_client.checkpoints.remote import RemoteSolver
from masksmith_client.cli.app import run
from masksmith_wire.documents import JobState, MasksRequest, WaitingFor
from masksmith_wire.masks import MaskInfo
from masksmith_wire.output_names import JOURNAL_NAME

from .conftest import FakeService, allowed_mask, busy, problem, refused

SMALL = 300
"""Bytes of a job's weights: one tensor."""
NAMES = [f"model.layers.{number}.mlp.up_proj.weight" for number in range(4)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    weights = {name: np.full((8, 8), number + 1.0, np.float32) for number, name in enumerate(NAMES)}
    weights = {name: weight + np.arange(64, dtype=np.float32).reshape(8, 8) for name, weight in weights.items()}
    save_file(weights | {"model.norm.weight": np.ones(8, np.float32)}, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a job of each tensor."""
    checked = RemoteSolver.checked.__func__  # type: ignore[attr-defined]

    def small(cls: type[RemoteSolver], *arguments: Any, **options: Any) -> RemoteSolver:
        return replace(checked(cls, *arguments, **options), group_bytes=SMALL)

    monkeypatch.setattr(RemoteSolver, "checked", classmethod(small))


def answer(status: int, code: str) -> Callable[[httpx2.Request], httpx2.Response]:
    return lambda request: problem(status, code, "no")


def submitted(service: FakeService) -> list[MasksRequest]:
    posts = [request for request in service.requests if request.method == "POST" and request.url.path == "/v1/jobs"]
    return [MasksRequest.model_validate_json(post.content) for post in posts]


def check(output: Path, *patterns: str) -> None:
    """Check the weights for the patterns of all tensors, or for one pattern."""
    masks = dict(zip(NAMES, map(mask_of, patterns if len(patterns) > 1 else patterns * len(NAMES)), strict=True))
    for name, weight in load_file(output / "model.safetensors").items():
        assert np.array_equal(weight != 0, masks[name]) if name in masks else (weight == 1).all()
    record = json.loads((output / "masksmith.json").read_text())
    kept = [int(mask.sum()) for mask in masks.values()]
    assert [tensor["kept"] for tensor in record["tensors"] if tensor["masked"]] == kept
    assert not list(output.glob(".*"))


def mask_of(pattern: str) -> Any:
    """The mask of a pattern, such as `2:4`; with axes, as in `2:4 in out`, that of a weight with this layout."""
    text, _, axes = pattern.partition(" ")
    return allowed_mask(MaskInfo(shape=[8, 8], pattern=text, axes=axes or None))


def test_one_job_takes_all_tensors_with_their_patterns_and_layouts(
    service: FakeService, client: Client, model: Path, tmp_path: Path
) -> None:
    patterns = ["2:4", f"{NAMES[1]}=1:4"]
    record = client.prune(model, tmp_path / "out", patterns, layout={NAMES[2]: "in out"}, scores="magnitude power=2")
    check(tmp_path / "out", "2:4", "1:4", "2:4 in out", "2:4")
    (request,) = submitted(service)
    assert [tensor.name for tensor in request.tensors] == NAMES
    assert [tensor.pattern or request.pattern for tensor in request.tensors] == ["2:4", "1:4", "2:4", "2:4"]
    layouts = [None if tensor.layout is None else tensor.layout.axes for tensor in request.tensors]
    assert layouts == [None, None, "in out", None]
    assert str(request.scores) == "magnitude power=2"
    assert record["totals"]["masked"] == 4
    assert client.prune(model, tmp_path / "out", patterns, layout={NAMES[2]: "in out"}, scores="magnitude power=2") == (
        record
    )
    assert len(submitted(service)) == 1


@pytest.mark.usefixtures("one_by_one")
def test_groups_are_sent_one_ahead_of_what_is_written(
    service: FakeService, client: Client, model: Path, tmp_path: Path
) -> None:
    service.fail("PUT", "/v1/tensors", busy)
    client.prune(model, tmp_path / "out", "2:4")
    check(tmp_path / "out", "2:4")
    kinds = [
        "post" if request.method == "POST" else "masks"
        for request in service.requests
        if request.url.path == "/v1/jobs" or request.url.path.endswith("/masks")
    ]
    assert kinds == ["post", "post", "masks", "post", "masks", "post", "masks", "masks"]
    assert service.count("POST", "/v1/jobs/") == 0  # nothing was canceled


@pytest.mark.usefixtures("one_by_one")
def test_jobs_are_named(service: FakeService, client: Client, model: Path, tmp_path: Path) -> None:
    client.prune(model, tmp_path / "out", ["2:4", f"{NAMES[0]}=1:4"])
    assert {request.name for request in submitted(service)} == {"model.safetensors, 1:4, 2:4"}
    service.requests.clear()
    client.prune(model, tmp_path / "named", "2:4", name="mine", labels={"team": "vision"})
    assert {(request.name, *(request.labels or {}).items()) for request in submitted(service)} == {
        ("mine", ("team", "vision"))
    }
    with pytest.raises(InputError, match="label"):
        client.prune(model, tmp_path / "other", "2:4", labels={"a b": ""})
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("connected")
def test_the_command_says_what_its_jobs_wait_for(
    service: FakeService, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.waiting_for = WaitingFor(queue="masksmith.gpu", role="search", device="cuda")
    assert run(["prune", str(model), "-p", "2:4", "-o", str(tmp_path / "out")]) == 0
    assert "job job0 waits: no worker is alive that finds masks on cuda; start one" in capsys.readouterr().err


@pytest.mark.usefixtures("one_by_one")
def test_a_limit_of_jobs_is_waited_for_by_finishing_one(
    service: FakeService, client: Client, model: Path, tmp_path: Path
) -> None:
    original, full = service._post, answer(429, "too_many_jobs")

    def limited(request: MasksRequest, key: str) -> httpx2.Response:
        if any(not job.state.is_terminal for job in service.jobs.values()):
            return full(httpx2.Request("POST", "http://service"))
        return original(request, key)

    service._post = limited  # type: ignore[method-assign]
    client.prune(model, tmp_path / "out", "2:4")
    check(tmp_path / "out", "2:4")


@pytest.mark.parametrize(
    ("method", "prefix", "status", "code", "error"),
    [
        ("GET", "/healthz", 0, "", TransportError),
        ("HEAD", "/v1/tensors", 401, "unauthorized", Unauthorized),
        ("PUT", "/v1/tensors", 413, "body_too_large", StatusError),
        ("POST", "/v1/jobs", 429, "too_many_jobs", StatusError),
        ("POST", "/v1/jobs", 422, "too_many_shards", StatusError),
        ("GET", "/v1/jobs", 404, "result_not_found", NotFound),
    ],
)
@pytest.mark.parametrize("exists", [False, True])
def test_a_refusal_leaves_the_output_as_it_was(
    service: FakeService, client: Client, model: Path, tmp_path: Path, method: str, prefix: str, status: int, code: str,
    error: type[Exception], exists: bool,
) -> None:  # fmt: skip
    output = tmp_path / "out"
    if exists:
        output.mkdir()
    service.fail(method, prefix, *[answer(status, code) if status else refused] * 40)
    with pytest.raises(error):
        client.prune(model, output, "2:4")
    assert output.exists() == exists
    assert not exists or not list(output.iterdir())
    service.faults.clear()
    client.prune(model, output, "1:4")
    check(output, "1:4")


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize("kind", ["full disk", "Ctrl-C", "lost service", "wrong digest"])
def test_what_ends_a_run_cancels_its_jobs_and_the_next_goes_on(
    service: FakeService, client: Client, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    output, count, certificate = tmp_path / "out", 0, remote._certificate
    full_disk, lost = OSError(errno.ENOSPC, "full"), TransportError("lost")
    error = {"full disk": full_disk, "Ctrl-C": KeyboardInterrupt(), "lost service": lost, "wrong digest": WireError("")}

    def failing(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == 2 and kind != "full disk":
            raise error[kind]
        return certificate(*arguments)

    def full(self: Any) -> None:
        flush(self)
        if count == 2 and kind == "full disk":
            raise error[kind]

    flush = partial_file.PartialFile.flush
    with monkeypatch.context() as context:
        context.setattr(remote, "_certificate", failing)
        context.setattr(partial_file.PartialFile, "flush", full)
        with pytest.raises(type(error[kind])):
            client.prune(model, output, "2:4")
    states = [job.state for job in service.jobs.values()]
    canceled = JobState.QUEUED if kind == "lost service" else JobState.CANCELED
    assert states == [JobState.SUCCEEDED, JobState.SUCCEEDED, canceled]
    assert (output / JOURNAL_NAME).read_bytes().count(b'{"tensor"') == 1
    with pytest.raises(InputError, match="unfinished output of another run"):
        client.prune(model, output, "1:4")
    posts, uploads = len(submitted(service)), service.count("PUT", "/v1/tensors")
    client.prune(model, output, "2:4")
    check(output, "2:4")
    assert [tensor.name for request in submitted(service)[posts:] for tensor in request.tensors] == NAMES[1:]
    assert service.count("PUT", "/v1/tensors") == uploads + 1  # only the last one had not been sent


def test_a_run_that_was_killed_before_it_had_a_mask_does_not_bind_the_output(
    client: Client, model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / JOURNAL_NAME).write_text('{"identity": {"version": "another"}}\n')
    (output / ".other.safetensors.part").write_bytes(b"x")
    client.prune(model, output, "2:4")
    check(output, "2:4")


def test_a_tensor_that_is_too_large_for_a_worker_is_refused_before_anything_is_sent(
    service: FakeService, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    header = {"l.0.w": {"dtype": "F32", "shape": [2**13, 2**14], "data_offsets": [0, 2**29]}}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + 2**29)
    with pytest.raises(InputError, match=r"'l\.0\.w' cannot be masked: 50% needs the whole tensor.*--local"):
        client.prune(path, tmp_path / "out", "50%")
    assert not service.requests
    assert not (tmp_path / "out").exists()
