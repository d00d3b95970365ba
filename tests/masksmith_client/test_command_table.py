import importlib
import importlib.metadata
import inspect
import shlex
import subprocess
import sys
from typing import Any

import pytest

from masksmith_client import InputError
from masksmith_client.cli import info
from masksmith_client.cli.app import run
from masksmith_client.cli.lazy import build_command, load, missing_packages_as_input_errors
from masksmith_client.cli.table import COMMANDS, EXAMPLES, GROUPS, PANELS, Entry

MODULES = {entry.target.partition(":")[0] for entry in COMMANDS.values()}
HEAVY = {"numpy", "httpx2", "asyncio", "redis", "torch", "masksmith_service", "masksmith_worker", "masksmith_wire"}


def loaded_by(*arguments: str) -> set[str]:
    """The modules that a process has imported when it has run a command."""
    code = (
        "import sys; from masksmith_client.cli.app import run; run(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-P", "-c", code, *arguments]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stderr.split())


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], ["jobs", "--help"], ["keys", "--help"]])
def test_lists_of_commands_import_none_of_them(arguments: list[str]) -> None:
    loaded = loaded_by(*arguments)
    assert "masksmith_client.cli.table" in loaded
    assert not loaded & (MODULES | HEAVY)


def test_help_of_a_command_imports_that_one() -> None:
    assert loaded_by("info", "--help") & MODULES == {"masksmith_client.cli.info"}


def test_help_of_commands_imports_no_client() -> None:
    code = (
        "import sys; from masksmith_client.cli.app import run; from masksmith_client.cli.table import COMMANDS\n"
        "for path in COMMANDS: run([*path.split(), '--help'])\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-P", "-c", code]
    loaded = set(subprocess.run(command, capture_output=True, text=True, check=True).stderr.split())
    assert loaded >= MODULES
    assert not loaded & {"numpy", "httpx2", "asyncio", "redis", "masksmith_client._errors", "masksmith_wire.documents"}
    assert not {
        name for name in loaded if name.startswith(("masksmith_state.", "masksmith_worker", "masksmith.solvers"))
    }


@pytest.mark.parametrize("path", COMMANDS)
def test_entries_name_functions_and_their_docstrings(path: str) -> None:
    function = load(path, COMMANDS[path])
    assert (inspect.getdoc(function) or "").split("\n")[0] == COMMANDS[path].help
    assert path.count(" ") == (path.partition(" ")[0] in GROUPS)


@pytest.mark.parametrize("path", COMMANDS)
def test_help_shows_examples_that_are_valid_and_no_type_of_flags(path: str, capsys: Any) -> None:
    assert run([*path.split(), "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "<bool>" not in text
    assert "<list" not in text
    command = build_command(path, load(path, COMMANDS[path]))
    for example in EXAMPLES.get(path, ()):
        assert " ".join(example.split()) in text.replace("\\ ", "")
        words = shlex.split(example)
        assert words[: 1 + len(path.split())] == ["masksmith", *path.split()]
        parsed = command.make_context(path, words[1 + len(path.split()) :], resilient_parsing=False)
        assert parsed is not None


@pytest.mark.parametrize("path", COMMANDS)
def test_a_narrow_terminal_shortens_no_option(path: str, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert run([*path.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert "…" not in text
    for option in build_command(path, load(path, COMMANDS[path])).params:
        assert all(name in text for name in option.opts if name.startswith("--"))
    # A list of choices has no place where it can be wrapped.
    assert all(len(line.rstrip()) <= 40 or "|" in line for line in text.splitlines())


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_has_a_line_of_help(path: str) -> None:
    parameters = build_command(path, load(path, COMMANDS[path])).params
    assert [option.name for option in parameters if not getattr(option, "help", "")] == []


def test_a_narrow_list_of_commands_has_their_whole_lines(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert run([]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(entry.help in text for path, entry in COMMANDS.items() if " " not in path)
    assert all(line in text for line in GROUPS.values())


def test_commands_are_grouped(capsys: Any) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert [text.index(panel) for panel in PANELS] == sorted(text.index(panel) for panel in PANELS)
    names = {path.partition(" ")[0] for path in COMMANDS}
    assert {name for panel in PANELS.values() for name in panel} == names


def test_extras_are_those_of_the_distribution() -> None:
    extras = importlib.metadata.metadata("masksmith").get_all("Provides-Extra")
    assert {entry.extra for entry in COMMANDS.values()} <= set(extras or ())


def test_a_missing_requirement_names_the_extra_that_installs_it() -> None:
    code = "import sys; sys.modules['redis'] = None; from masksmith_client.cli import main; main()"
    command = [sys.executable, "-P", "-c", code, "keys", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "masksmith: 'masksmith keys list' needs redis: pip install 'masksmith[service]'\n"


def test_up_names_a_missing_requirement_before_it_starts(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    assert run(["up"]) == 2
    assert capsys.readouterr().err == "masksmith: the service needs redis: pip install 'masksmith[service]'\n"


def test_a_module_of_ours_that_is_missing_is_a_defect() -> None:
    with pytest.raises(ModuleNotFoundError):
        load("absent", Entry("masksmith_client.cli.absent:absent", "cli", ""))


class ForeignError(Exception):
    exit_code = 7


def test_errors_with_an_exit_code_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def fail() -> None:
        raise ForeignError("the disk is full")

    monkeypatch.setattr(info, "info", fail)
    assert run(["info"]) == 7
    assert capsys.readouterr().err == "masksmith: the disk is full\n"


def test_errors_without_one_are_defects(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise LookupError

    monkeypatch.setattr(info, "info", fail)
    with pytest.raises(LookupError):
        run(["info"])


def test_a_package_that_the_code_of_a_model_needs_is_not_one_of_ours(tmp_path: Any, monkeypatch: Any) -> None:
    (tmp_path / "modeling_strange.py").write_text("import a_package_of_the_model.layers\n")
    monkeypatch.syspath_prepend(tmp_path)
    entry = Entry("masksmith_client.cli.prune:prune", "torch", "")
    message = (
        "modeling_strange needs a_package_of_the_model, which is not installed: pip install a_package_of_the_model"
    )
    with pytest.raises(InputError, match=f"^{message}$"), missing_packages_as_input_errors("prune", entry):
        importlib.import_module("modeling_strange")
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "safetensors.torch", raising=False)
    ours = r"'masksmith prune' needs torch: pip install 'masksmith\[torch\]'"
    with pytest.raises(InputError, match=ours), missing_packages_as_input_errors("prune", entry):
        importlib.import_module("safetensors.torch")
