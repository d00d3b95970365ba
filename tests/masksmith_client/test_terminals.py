"""Terminals and pipes: other encodings, closed streams, Ctrl-C."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from masksmith_client.cli import info
from masksmith_client.cli.app import run

MAIN = [sys.executable, "-c", "from masksmith_client.cli import main; main()"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_file({"层.权重": np.ones((8, 8), np.float32)}, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_characters_that_the_terminal_cannot_show_are_escaped(model: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*MAIN, "inspect", model], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "\\u5c42.\\u6743\\u91cd" in done.stdout) == (0, True)


def test_a_closed_standard_output_is_the_null_device(model: Path, tmp_path: Path) -> None:
    shell = ["sh", "-c", '"$@" >&-', "sh", *MAIN]
    copy = tmp_path / "masks.safetensors"
    done = subprocess.run([*shell, "inspect", model], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    done = subprocess.run([*shell, "solve", model, "-p", "2:4", "--local", "-o", copy], check=False)
    assert done.returncode == 0
    assert run(["verify", str(copy)]) == 0  # Nothing was printed into the file.


@pytest.mark.parametrize(
    "arguments", [["inspect"], ["inspect", "--json"], ["solve", "-p", "2:4", "--local", "-o", "-"]]
)
def test_a_full_standard_output_is_one_line_and_exit_code_one(model: Path, arguments: list[str]) -> None:
    command = [*MAIN, arguments[0], model, *arguments[1:]]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("masksmith: standard output: No space left on device\n")
    assert "Traceback" not in done.stderr


def test_a_closed_pipe_is_exit_code_one_without_a_message(model: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*MAIN, "inspect", model], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_ctrl_c_is_one_line_and_its_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "info", interrupted)
    assert run(["info"]) == 130
    assert capsys.readouterr().err == "masksmith: interrupted\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["jobs", "list", "-n", "-1"], "'--limit' / '-n': '-1': input should be greater than or equal to 1"),
        (["up", "--port", "99999"], "'--port': '99999': input should be less than or equal to 65535"),
        (["solve", "m", "-p", "2:4", "-o", "o", "--timeout", "-3"], "'--timeout': '-3': input should be greater"),
        (["solve", "m", "-p", "2:4", "-o", "o", "--timeout", "nan"], "'--timeout': 'nan': input should be greater"),
        (["solve", "m", "-p", "2:4", "-o", "o", "--solver", "exat"], "'--solver' / '-s': 'exat' is not one of"),
        (["bench", "--local", "--shapes", "8x8", "-p", "2:4", "-b", "0"], "--batch=0: input should be greater"),
        (["bench", "--local"], "pass --model, --shapes, or --masks-of"),
        (["jobs", "show", ""], "'' is not the id of a job; 'masksmith jobs list' lists them"),
        (["jobs", "delete", ".."], "'..' is not the id of a job"),
    ],
)
def test_messages_name_option_and_value(arguments: list[str], message: str, capsys: Any) -> None:
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
