"""`masksmith prune` that ends early goes on where it was; outputs that are not its own are refused."""

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.processes import poll

from masksmith_client._errors import InputError
from masksmith_client.checkpoints import partial_file
from masksmith_client.checkpoints.journal import open_journal
from masksmith_client.cli import local_prune
from masksmith_client.cli.app import run
from masksmith_wire.output_names import JOURNAL_NAME

Saved = Callable[[str], Path]
Solved = list[str]

# The command, which stops for good after so many tensors.
STALLED = """
import sys, time
from masksmith_client.cli import local_prune
from masksmith_client.cli.app import run
solve, left = local_prune._solve, int(sys.argv[1])
def stalled(*arguments):
    global left
    if left == 0:
        time.sleep(3600)
    left -= 1
    return solve(*arguments)
local_prune._solve = stalled
sys.exit(run(sys.argv[2:]))
"""


def command(model: Path, output: Path, *options: str) -> list[str]:
    return ["prune", str(model), "-p", "2:4", "-o", str(output), "--local", "--threads", "1", *options]


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the record, which says how long solving took."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    record = json.loads(files.pop("masksmith.json"))
    for tensor in record["tensors"]:
        tensor.pop("solve_s", None)
    return files | {"record": json.dumps(record, sort_keys=True).encode()}


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> Solved:
    """Names of the tensors that are solved in this process."""
    names: Solved = []
    solve = local_prune._solve

    def counting(masksmith: Any, tensor: Any, *rest: Any) -> Any:
        names.append(tensor.chosen.name)
        return solve(masksmith, tensor, *rest)

    monkeypatch.setattr(local_prune, "_solve", counting)
    return names


@pytest.fixture
def whole(saved: Saved, tmp_path: Path) -> dict[str, bytes]:
    """What an undisturbed run writes."""
    assert run(command(saved("llama"), tmp_path / "whole")) == 0
    return contents(tmp_path / "whole")


def lines(output: Path) -> int:
    journal = output / JOURNAL_NAME
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


@pytest.mark.parametrize("after", [3, pytest.param(9, marks=pytest.mark.slow)])
def test_a_killed_process_goes_on_after_the_last_finished_tensor(
    saved: Saved, tmp_path: Path, whole: dict[str, bytes], solved: Solved, after: int
) -> None:
    output = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", STALLED, str(after), *command(saved("llama"), output)])
    try:
        poll(lambda: lines(output) >= after or process.poll() is not None)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    written = [json.loads(line) for line in (output / JOURNAL_NAME).read_bytes().splitlines(keepends=True)
               if line.endswith(b"\n")]  # fmt: skip
    done = {line["tensor"] for line in written if "tensor" in line}
    assert done
    assert not (output / "model.safetensors.index.json").exists()
    assert run(command(saved("llama"), output)) == 0
    assert len(solved) == 14 - len(done)
    assert done.isdisjoint(solved)
    assert contents(output) == whole


@pytest.mark.parametrize("writes", [0, 1, 5, 12, 20, 28, 33])
def test_a_full_disk_leaves_no_half_file_and_the_rest_follows(
    saved: Saved,
    tmp_path: Path,
    whole: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    writes: int,
) -> None:
    output, left = tmp_path / "out", writes
    write = partial_file.PartialFile.write

    def full(self: Any, data: Any) -> None:
        nonlocal left
        if left == 0:
            with partial_file.named_errors(self.target):
                self._file.write(bytes(data)[: len(data) // 2])
                self._file.flush()
                raise OSError(errno.ENOSPC, "No space left on device")
        left -= 1
        write(self, data)

    with monkeypatch.context() as context:
        context.setattr(partial_file.PartialFile, "write", full)
        assert run(command(saved("llama"), output)) == 1
    assert "safetensors: No space left on device" in capsys.readouterr().err
    for file in output.glob("*.safetensors"):
        assert file.read_bytes() == whole[file.name]
    assert run(command(saved("llama"), output)) == 0
    assert contents(output) == whole


def test_a_disk_that_is_too_small_is_refused_before_the_work(
    saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, solved: Solved
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1000, 0, 1000))
    assert run(command(saved("llama"), tmp_path / "out")) == 1
    assert "1,000 B are free" in capsys.readouterr().err
    assert not solved


def interrupted(model: Path, output: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Begin a run that ends after some tensors."""
    solve, count = local_prune._solve, 0

    def stopping(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count > after:
            raise KeyboardInterrupt
        return solve(*arguments)

    with monkeypatch.context() as context:
        context.setattr(local_prune, "_solve", stopping)
        assert run(command(model, output)) == 130


@pytest.mark.parametrize("damage", ["shard", "masks", "journal", "finished"])
def test_what_was_lost_with_the_power_is_written_anew(
    saved: Saved, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    output = tmp_path / "out"
    interrupted(saved("llama"), output, monkeypatch, 8)
    (masks,) = output.glob(".masks*.part")
    (shard,) = output.glob(".model*.part")
    if damage == "journal":
        with (output / JOURNAL_NAME).open("ab") as journal:
            journal.write(b'{"tensor": "model.la')
    elif damage == "finished":
        next(output.glob("model*.safetensors")).unlink()
    else:
        path = masks if damage == "masks" else shard
        path.write_bytes(path.read_bytes()[:-40] + bytes(40))
    assert run(command(saved("llama"), output)) == 0
    assert contents(output) == whole


def test_an_error_at_the_start_of_writing_anew_leaves_a_directory_that_can_be_continued(
    saved: Saved, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    interrupted(saved("llama"), output, monkeypatch, 8)
    assert list(output.glob("model*.safetensors"))
    next(output.glob(".masks*.part")).write_bytes(b"")
    interrupted(saved("llama"), output, monkeypatch, 0)
    assert run(command(saved("llama"), output)) == 0
    assert contents(output) == whole


def reorder_index(model: Path) -> None:
    """List the same tensors in the same files, but another file first."""
    path = model / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    last = next(reversed(dict.fromkeys(index["weight_map"].values())))
    index["weight_map"] = dict(sorted(index["weight_map"].items(), key=lambda item: item[1] != last))
    path.write_text(json.dumps(index))


@pytest.mark.parametrize("change", ["input", "options", "order of the index"])
def test_another_input_or_other_options_are_refused(
    saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    model, output = tmp_path / "model", tmp_path / "out"
    shutil.copytree(saved("llama"), model)
    interrupted(model, output, monkeypatch, 2)
    capsys.readouterr()
    options = ["--exclude", "*.q_proj.weight"] if change == "options" else []
    if change == "input":
        file = next(model.glob("*.safetensors"))
        data = file.read_bytes()
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif change == "order of the index":
        reorder_index(model)
    assert run(command(model, output, *options)) == 2
    error = capsys.readouterr().err
    assert "unfinished output of another run" in error
    assert {"options": "options", "input": "weights"}.get(change, "index") in error


def test_an_input_that_changes_while_it_is_read_is_refused(
    saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a training that saves its next checkpoint: the solver opens the file anew for each tensor."""
    model, solve = tmp_path / "model", local_prune._solve
    shutil.copytree(saved("gpt2"), model)

    def saving(*arguments: Any) -> Any:
        for file in model.glob("*.safetensors"):
            copy = shutil.copyfile(file, tmp_path / "new")
            os.utime(copy, ns=(0, 0))
            os.replace(copy, file)
        return solve(*arguments)

    monkeypatch.setattr(local_prune, "_solve", saving)
    assert run(command(model, tmp_path / "out")) == 2
    assert ".safetensors has changed since" in capsys.readouterr().err


def test_a_finished_output_is_not_written_again(saved: Saved, tmp_path: Path, solved: Solved) -> None:
    output = tmp_path / "out"
    assert run(command(saved("gpt2"), output)) == 0
    before, count = contents(output), len(solved)
    assert run(command(saved("gpt2"), output)) == 0
    assert (contents(output), len(solved)) == (before, count)
    assert run(command(saved("gpt2"), output, "--exclude", "*.c_fc.weight")) == 2


def test_two_processes_do_not_write_one_output(
    saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    interrupted(saved("llama"), output, monkeypatch, 2)
    with (output / JOURNAL_NAME).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert run(command(saved("llama"), output)) == 2
    assert "another process" in capsys.readouterr().err


def test_the_lock_of_a_journal_that_was_removed_meanwhile_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a process that ends its work between the opening of the journal and its lock."""
    lock = fcntl.flock

    def late(file: Any, operation: int) -> None:
        (tmp_path / JOURNAL_NAME).unlink()
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(InputError, match="another process has just ended its work in"), open_journal(tmp_path, {}):
        pytest.fail("the journal was opened")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["-", "file", "pipe", "device", "dangling", "other", "model"])
def test_strange_outputs_are_refused(
    saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str], solved: Solved, kind: str
) -> None:
    output = tmp_path / "out"
    if kind == "file":
        output.write_text("x")
    elif kind == "pipe":
        os.mkfifo(output)
    elif kind == "dangling":
        output.symlink_to(tmp_path / "nothing")
    elif kind == "other":
        output.mkdir()
        (output / "thesis.tex").write_text("x")
    path = {"-": Path("-"), "device": Path("/dev/null"), "model": saved("gpt2")}.get(kind, output)
    assert run(command(saved("gpt2"), path)) == 2
    messages = {"-": "standard output", "dangling": "does not exist", "other": "thesis.tex", "model": "itself"}
    assert messages.get(kind, kind) in capsys.readouterr().err
    assert not solved


def test_a_directory_without_permission_is_refused_before_the_work(
    saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str], solved: Solved, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved("gpt2")
    monkeypatch.setattr("os.access", lambda path, mode: False)  # The tests may run as root, who may write anywhere.
    assert run(command(model, tmp_path / "new" / "out")) == 2
    assert f"out cannot be written: no permission in {tmp_path}" in capsys.readouterr().err
    assert not solved


def test_a_full_disk_leaves_no_journal_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*journal"), open_journal(tmp_path, {"a": 1}):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_a_directory_is_followed(saved: Saved, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert run(command(saved("gpt2"), tmp_path / "link")) == 0
    assert (tmp_path / "real" / "model.safetensors.index.json").is_file()
    assert (tmp_path / "link").is_symlink()
