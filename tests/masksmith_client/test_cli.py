import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from masksmith_client import Masks
from masksmith_client.cli.app import run
from masksmith_wire.documents import WaitingFor
from masksmith_wire.masks import MaskInfo, file_header

from .conftest import FakeService, refused

pytestmark = pytest.mark.usefixtures("connected")

Run = Callable[..., int]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    arrays = {"a": np.random.default_rng(0).normal(size=(8, 16)), "b": np.ones((4, 4)), "bias": np.ones(4)}
    save_file(arrays, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_solve_writes_masks_and_says_what_they_keep(checkpoint: Path, capsys: Any) -> None:
    output = checkpoint.with_name("masks.safetensors")
    assert run(["solve", str(checkpoint), "-p", "2:4", "-o", str(output)]) == 0
    out = capsys.readouterr().out
    assert "8x16" in out
    assert "75.00%" in out
    assert "skipped 1: bias" in out
    assert set(Masks.open(output)) == {"a", "b"}


def test_what_is_left_out_by_choice_is_listed_in_json_alone(checkpoint: Path, capsys: Any) -> None:
    command = ["solve", str(checkpoint), "-p", "2:4", "-o", str(checkpoint.with_name("m")), "--exclude", "b"]
    assert run([*command, "--layers", "a", "--layers", "b*"]) == 0
    assert "skipped 1: bias" in capsys.readouterr().out
    assert run([*command, "--layers", "a", "--layers", "b*", "--json"]) == 0
    reasons = {skip["name"]: skip["reason"] for skip in json.loads(capsys.readouterr().out)["skipped"]}
    assert reasons["b"] == "excluded"
    assert reasons["bias"] == "a bias"


def test_one_file_under_two_paths_is_not_written_twice(checkpoint: Path, capsys: Any) -> None:
    folder, link = checkpoint.parent, checkpoint.with_name("link")
    link.symlink_to(folder)
    files = ["-o", str(folder / "out.safetensors"), "--weights-out", str(link / "out.safetensors")]
    assert run(["solve", str(checkpoint), "-p", "2:4", "--update", "reconstruct", *files]) == 2
    assert "is given for both masks and weights" in capsys.readouterr().err


def test_json_is_all_of_stdout(checkpoint: Path, capsys: Any) -> None:
    output = checkpoint.with_name("m")
    assert run(["solve", str(checkpoint), "-p", "2:4", "-o", str(output), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {tensor["name"] for tensor in document["tensors"]} == {"a", "b"}
    assert document["total"]["gap"] == 0.0
    assert document["total"]["retained"] == 0.75
    assert document["skipped"][0]["name"] == "bias"


def test_a_failed_tensor_costs_only_its_own_mask(service: FakeService, checkpoint: Path, capsys: Any) -> None:
    service.bad_tensors.add("b")
    output = checkpoint.with_name("m")
    assert run(["solve", str(checkpoint), "-p", "2:4", "-o", str(output)]) == 1
    assert "b: tensor 'b': NaN at [0, 1]" in capsys.readouterr().err
    assert set(Masks.open(output)) == {"a"}


def test_local_solving_agrees_with_the_library(checkpoint: Path, capsys: Any) -> None:
    output = checkpoint.with_name("m")
    assert run(["solve", str(checkpoint), "-p", "transposable 2:4", "-o", str(output), "--local", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert all(tensor["status"] == "optimal" and tensor["gap"] == 0.0 for tensor in document["tensors"])
    assert run(["verify", str(output), "-p", "transposable 2:4"]) == 0
    assert run(["verify", str(output)]) == 0
    assert run(["verify", str(output), "-p", "1:4", "--json"]) == 1


def test_local_solving_names_the_bad_tensor_and_keeps_the_good_ones(tmp_path: Path, capsys: Any) -> None:
    bad = np.ones((4, 4))
    bad[1, 2] = np.nan
    save_file({"good": np.ones((4, 4)), "bad": bad}, tmp_path / "model.safetensors")
    arguments = ["solve", str(tmp_path / "model.safetensors"), "-p", "2:4", "-o", str(tmp_path / "m"), "--local"]
    assert run(arguments) == 1
    assert "'bad': NaN at [1, 2]" in capsys.readouterr().err
    assert set(Masks.open(tmp_path / "m")) == {"good"}


@pytest.mark.parametrize("shape", [(0, 16), (16, 0), (0, 0)])
@pytest.mark.parametrize("is_packed", [True, False])
def test_a_mask_without_entries_is_not_valid(
    tmp_path: Path, capsys: Any, shape: tuple[int, int], is_packed: bool
) -> None:
    info = MaskInfo(shape=list(shape), pattern="2:4")
    (tmp_path / "masks").write_bytes(file_header({"w": info}, as_bool=not is_packed))
    assert run(["verify", str(tmp_path / "masks"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["masks"][0]["message"] == "it has no entries"
    assert run(["verify", str(tmp_path / "masks")]) == 1
    assert "1 of 1 mask(s) violate their patterns, or do not fit them" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["solve", "{file}", "-p", "9:4", "-o", "{out}"], "9:4"),
        (["solve", "{file}", "-p", "2:4", "-o", "{out}", "--solver", "magic"], "magic"),
        (["solve", "{file}", "-p", "2:4", "-o", "{out}", "--layers", "zzz"], "zzz"),
        (["solve", "{file}", "-p", "2:4", "-o", "{file}"], "is an input"),
        (["solve", "{file}", "-p", "2:4", "-o", "{folder}"], "is a directory"),
        (["solve", "{file}", "-p", "2:4", "-o", "{folder}/no/where"], "does not exist"),
        (["solve", "{folder}/absent", "-p", "2:4", "-o", "{out}"], "does not exist"),
        (["solve", "{file}", "-p", "2:4", "-o", "{out}", "--url", "nonsense"], "nonsense"),
        (["solve", "{file}", "-o", "{out}"], "--pattern"),
        (["verify", "{file}"], "pass --pattern"),
        (["verify", "{folder}/absent"], "does not exist"),
        (["jobs", "show", "nope"], "nope"),
        (["jobs", "explode"], "explode"),
        (["frobnicate"], "frobnicate"),
        (["up", "--port", "70000"], "65535"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_exit_code_two(
    arguments: list[str], message: str, checkpoint: Path, capsys: Any
) -> None:
    places = {"file": checkpoint, "folder": checkpoint.parent, "out": checkpoint.with_name("out")}
    assert run([word.format(**places) for word in arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_no_service_is_one_line_and_exit_code_one(service: FakeService, capsys: Any) -> None:
    service.fail("GET", "/", *[refused] * 100)
    assert run(["info"]) == 1
    assert "start one with 'masksmith up'" in capsys.readouterr().err


def test_jobs_are_listed_shown_watched_canceled_and_deleted(checkpoint: Path, capsys: Any) -> None:
    run(["solve", str(checkpoint), "-p", "2:4", "-o", str(checkpoint.with_name("m"))])
    capsys.readouterr()

    def output(*arguments: str) -> str:
        assert run(arguments) == 0
        return str(capsys.readouterr().out)

    assert json.loads(output("jobs", "list", "--json"))[0]["id"] == "job0"
    assert "job0" in output("jobs", "list")
    assert "succeeded" in output("jobs", "show", "job0")
    events = [json.loads(line) for line in output("jobs", "watch", "job0", "--json").splitlines()]
    assert events[-1] == {"id": "3-0", "event": "state", "state": "succeeded"}
    assert "2/2 shards" in output("jobs", "watch", "job0")
    assert json.loads(output("jobs", "masks", "job0", "-o", str(checkpoint.with_name("n")), "--json"))["masks"]
    assert "canceled" in output("jobs", "cancel", "job0")
    assert json.loads(output("jobs", "delete", "job0", "--json")) == {"id": "job0", "deleted": True}
    assert json.loads(output("jobs", "list", "--json")) == []


@pytest.mark.parametrize("kind", ["masks", "weights"])
def test_a_download_does_not_replace_or_hide_the_files_of_a_model(tmp_path: Path, capsys: Any, kind: str) -> None:
    save_file({"layers.0.w.weight": np.ones((8, 8), np.float32)}, tmp_path / "pruned.safetensors")
    for name, message in {
        "config.json": "is a file of the model",
        "pruned.safetensors": "is a file of the model",
        "new.safetensors": "would count as weights of the model",
    }.items():
        (tmp_path / "config.json").write_text("{}")
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        assert run(["jobs", kind, "job0", "-o", str(tmp_path / name)]) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_downloads_of_several_jobs_are_written_into_one_directory(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    run(["solve", str(checkpoint), "-p", "2:4", "-o", str(checkpoint.with_name("m"))])
    for name in ("a.safetensors", "b.safetensors", "a.safetensors"):
        assert run(["jobs", "masks", "job0", "-o", str(tmp_path / "downloads" / name)]) == 0


def test_commands_say_what_a_job_waits_for(service: FakeService, checkpoint: Path, capsys: Any) -> None:
    service.waiting_for = WaitingFor(queue="masksmith.cpu", role="search", device="cpu")
    solved = ["solve", str(checkpoint), "-p", "2:4", "-o", str(checkpoint.with_name("m"))]
    line = "masksmith: job job0 waits: no worker is alive that finds masks on cpu; start one with 'masksmith worker"
    for arguments in (solved, ["jobs", "watch", "job0"], ["jobs", "watch", "job0", "--json"]):
        assert run(arguments) == 0
        assert line in capsys.readouterr().err


def test_watching_a_failed_job_is_exit_code_one(service: FakeService, checkpoint: Path) -> None:
    service.bad_tensors.add("a")
    run(["solve", str(checkpoint), "-p", "2:4", "-o", str(checkpoint.with_name("m"))])
    assert run(["jobs", "watch", "job0", "--json"]) == 1


def test_info_of_a_service_without_workers_is_exit_code_one(capsys: Any) -> None:
    assert run(["info", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["trouble"] == "no worker is alive"


def test_help_and_version(capsys: Any) -> None:
    for arguments in ([], ["--help"], ["solve", "--help"], ["jobs", "--help"], ["up", "--help"]):
        assert run(arguments) == (2 if arguments == ["jobs"] else 0)
    assert "masksmith" in capsys.readouterr().out
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("masksmith ")
