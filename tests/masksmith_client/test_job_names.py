"""Names and labels that the client gives to jobs, and filters of lists."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from masksmith_client import AsyncClient, Client, InputError
from masksmith_client.cli.app import run
from masksmith_client.cli.naming import read_time
from masksmith_client.submission.benchmarks import prepare_benchmark
from masksmith_client.submission.description import subject_of_weights
from masksmith_client.submission.prepare import prepare

from .conftest import FakeService

WEIGHTS = {"a": np.ones((8, 8), np.float32)}


def name_of(weights: object, pattern: Any = "2:4", **options: Any) -> str | None:
    return prepare(weights, pattern, **options).description.name


def test_a_job_is_named_by_its_caller_or_by_its_file(file: Path) -> None:
    assert name_of(file) == name_of(str(file)) == "model.safetensors, 2:4"
    assert name_of(file, ["2:4", "a=1:4"]) == "model.safetensors, 1:4"
    assert name_of(file, name="mine") == "mine"
    assert name_of(WEIGHTS) is None


def test_subjects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "llama"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    assert subject_of_weights(".") == subject_of_weights(folder / "model.safetensors.index.json") == "llama"
    assert subject_of_weights(tmp_path / "link") == "link"

    class TinyModel:
        def state_dict(self) -> dict[str, Any]:
            return WEIGHTS

    assert subject_of_weights(TinyModel()) == "TinyModel"
    assert subject_of_weights(WEIGHTS) is subject_of_weights(["8x8"]) is subject_of_weights(None) is None


def test_a_file_may_have_any_name(tmp_path: Path, file: Path) -> None:
    strange = tmp_path / os.fsdecode(b"\xff\x1b[2J\n.safetensors")
    file.rename(strange)
    assert (
        name_of(strange)
        == "\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}.safetensors, 2:4"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": ""}, "name: "), ({"name": "a\x1b[2J"}, "name: control characters"),
        ({"labels": {"a b": "c"}}, "label 'a b': "), ({"labels": {"a": "\n"}}, "label 'a': control characters"),
        ({"labels": {f"k{n}": "" for n in range(17)}}, "labels: 17 labels, a job has at most 16"),
        ({"labels": ["team"]}, "labels: input should be a valid dictionary"),
    ],
)  # fmt: skip
def test_bad_names_and_labels_are_refused_before_anything_is_sent(
    client: Client, service: FakeService, options: Any, words: str
) -> None:
    for send in (
        lambda: client.jobs.submit(WEIGHTS, "2:4", **options),
        lambda: client.jobs.submit_benchmark("MiniLM", "2:4", **options),
    ):
        with pytest.raises(InputError, match=words):
            send()
    assert service.requests == []


def test_names_and_labels_are_sent(client: Client, async_client: AsyncClient) -> None:
    job = client.jobs.submit(WEIGHTS, "2:4", name="mine", labels={"team": "vision"})
    assert (job.document.name, job.document.labels) == ("mine", {"team": "vision"})
    again = asyncio.run(async_client.jobs.submit(WEIGHTS, "2:4", name="ours"))
    assert again.document.name == "ours"


def test_benchmarks_are_named(file: Path) -> None:
    assert prepare_benchmark("MiniLM", "2:4").name is None
    assert prepare_benchmark("8x8", "2:4").name is None
    assert prepare_benchmark(str(file), ["2:4", "1:4"]).name == "model.safetensors, 2:4, 1:4"
    named = prepare_benchmark("8x8", "2:4", name="mine", labels={"a": ""})
    assert (named.name, named.labels) == ("mine", {"a": ""})


def test_filters_are_sent_with_every_page(
    client: Client, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("masksmith_client.operations.jobs.PAGE_SIZE", 1)
    for name in ("one", "two"):
        client.jobs.submit(WEIGHTS, "2:4", name=name)
    service.requests.clear()
    since = datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=2)))
    filters = {
        "name": "o",
        "kind": "masks",
        "state": "queued",
        "labels": {"team": "vision", "run": None},
        "since": since,
    }
    assert len(list(client.jobs.list(**filters))) == 2  # type: ignore[arg-type]
    sent = [request.url.params.multi_items() for request in service.requests]
    expected = [("name", "o"), ("kind", "masks"), ("state", "queued"), ("label", "team=vision"), ("label", "run")]
    assert len(sent) == 2
    for items in sent:
        assert [item for item in items if item[0] not in ("limit", "after", "since")] == expected
        assert datetime.fromisoformat(dict(items)["since"]) == since
    service.requests.clear()
    list(client.jobs.list(state=["queued", "running"]))
    assert service.requests[0].url.params.get_list("state") == ["queued", "running"]


def test_a_filter_that_cannot_be_applied_does_not_list_all_jobs(client: Client, service: FakeService) -> None:
    client.jobs.submit(WEIGHTS, "2:4")
    service.requests.clear()
    with pytest.raises(TypeError, match="unexpected filter 'states'"):
        list(client.jobs.list(states="failed"))  # type: ignore[call-arg]
    with pytest.raises(InputError, match=r"since='2026-01-31' is not a datetime"):
        list(client.jobs.list(since="2026-01-31"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"since=datetime\.datetime\(1, .*\) is not in the years 1 to 9999"):
        list(client.jobs.list(since=datetime.min))
    assert service.requests == []


def test_times_of_the_command_line() -> None:
    now = datetime.now(UTC)
    for text, age in (("90s", timedelta(seconds=90)), ("2h", timedelta(hours=2)), ("7d", timedelta(days=7))):
        moment = read_time(text, "--since")
        assert moment is not None
        assert abs(now - age - moment) < timedelta(minutes=1)
    assert read_time("2026-01-31T12:00:00+02:00", "--since") == datetime(2026, 1, 31, 10, tzinfo=UTC)
    assert read_time("2026-01-31 12:00", "--since") == datetime(2026, 1, 31, 12).astimezone()
    assert read_time(None, "--since") is None
    for text in ("yesterday", "", "h", "99999999999w", "2 h"):
        with pytest.raises(InputError, match="--until"):
            read_time(text, "--until")


def test_label_filters_of_one_key_are_all_used(connected: None, service: FakeService, capsys: Any) -> None:
    assert run(["jobs", "list", "--label", "team=vision", "--label", "team", "--label", "run"]) == 0
    assert service.requests[-1].url.params.get_list("label") == ["team=vision", "run"]
    sent = len(service.requests)
    capsys.readouterr()
    assert run(["jobs", "list", "--label", "team=vision", "--label", "team=audio"]) == 2
    assert "label 'team=audio' is given with two values, and no job has both" in capsys.readouterr().err
    assert run(["jobs", "list", "--label", "=vision"]) == 2
    assert "label '=vision' is neither KEY=VALUE nor KEY" in capsys.readouterr().err
    assert len(service.requests) == sent


@pytest.fixture
def file(tmp_path: Path) -> Path:
    import safetensors.numpy

    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(WEIGHTS, path)
    return path


def test_labels_are_options_of_commands(connected: None, file: Path, capsys: Any) -> None:
    solve = ["solve", str(file), "-p", "2:4", "-o", str(file.with_name("m"))]
    assert run([*solve, "--name", "mine", "--label", "team=vision", "--label", "run=3"]) == 0
    capsys.readouterr()
    assert run(["jobs", "list", "--json"]) == 0
    job = json.loads(capsys.readouterr().out)[0]
    assert (job["name"], job["labels"], job["kind"]) == ("mine", {"team": "vision", "run": "3"}, "masks")
    assert run(["jobs", "list"]) == 0
    assert "mine" in capsys.readouterr().out
    assert run(["jobs", "show", job["id"]]) == 0
    assert "name: mine (team=vision run=3)" in capsys.readouterr().out
    assert run([*solve, "--label", "team"]) == 2
    assert "is not KEY=VALUE" in capsys.readouterr().err


def test_terminals_get_no_control_characters(service: FakeService, connected: None, file: Path, capsys: Any) -> None:
    run(["solve", str(file), "-p", "2:4", "-o", str(file.with_name("m"))])
    service.jobs["job0"] = service.jobs["job0"].model_copy(update={"name": "a\x1b[2Jb", "labels": {"k": "\x07"}})
    for arguments in (["jobs", "list"], ["jobs", "show", "job0"]):
        capsys.readouterr()
        assert run(arguments) == 0
        text = capsys.readouterr().out
        assert r"a\x1b[2Jb" in text
        assert "\x1b" not in text
        assert "\x07" not in text


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("solve", ("--name", "mine")),
        ("solve", ("--label", "a=b")),
        ("solve", ("--priority", "batch")),
        ("solve", ("--timeout", "60")),
        ("prune", ("--name", "mine")),
        ("prune", ("--label", "a=b")),
        ("prune", ("--priority", "batch")),
    ],
)
def test_options_of_a_job_are_refused_where_none_is_started(
    command: str, option: tuple[str, str], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = file.with_name("output.safetensors")
    assert run([command, str(file), "-p", "2:4", "-o", str(output), "--local", *option]) == 2
    assert f"{option[0]} is for the job of a service, and --local starts none" in capsys.readouterr().err
    assert not output.exists()
