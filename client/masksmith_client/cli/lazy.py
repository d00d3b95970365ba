"""Imports a command's module only when the command, or its help, is called."""

from __future__ import annotations

import functools
import importlib.metadata
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from .help_pages import add_details, panel_of
from .table import COMMANDS, GROUPS, PANELS, Entry


class LazyCommand(TyperCommand):
    """Placeholder of a command; parsing its arguments imports the real command.

    Args:
        path: The words of the command after `masksmith`, such as `solve` or `jobs list`.
        entry: The command's entry in the table.
    """

    def __init__(self, path: str, entry: Entry) -> None:
        name = path.rpartition(" ")[2]
        panel = None if " " in path else panel_of(path)
        # Without `short_help`, click would shorten the line of help where it prints the list of commands as plain text.
        super().__init__(name, help=entry.help, short_help=entry.help, rich_help_panel=panel)
        self._path, self._entry = path, entry

    def make_context(self, info_name: str | None, args: list[str], *options: Any, **more_options: Any) -> Any:
        """Return the context of the real command, which click then invokes.

        Raises:
            InputError: If a package that the command imports is not installed.
        """
        function = load(self._path, self._entry)

        # Most commands import what they need only when they run, so that their help is fast. The import of a missing
        # package then fails inside `call`.
        @functools.wraps(function)
        def call(*values: Any, **more_values: Any) -> Any:
            with missing_packages_as_input_errors(self._path, self._entry):
                return function(*values, **more_values)

        command = build_command(self.name, call)
        add_details(self._path, command)
        return command.make_context(info_name, args, *options, **more_options)


def add_commands(root: TyperGroup) -> None:
    """Add the table's commands to the root or to their groups, in the order of the panels; then add the groups."""
    groups = {
        name: TyperGroup(name=name, help=line, short_help=line, rich_help_panel=panel_of(name))
        for name, line in GROUPS.items()
    }
    for group in groups.values():
        add_details("", group)
    for path in sorted(COMMANDS, key=_panel_number):
        parent = groups.get(_first_word(path), root)
        parent.add_command(LazyCommand(path, COMMANDS[path]))
    for group in groups.values():
        root.add_command(group)


def _first_word(path: str) -> str:
    """Return the name of a command, or of its group: `jobs` for `jobs list`."""
    return path.partition(" ")[0]


def _panel_number(path: str) -> int:
    return list(PANELS).index(panel_of(_first_word(path)))


def load(path: str, entry: Entry) -> Callable[..., Any]:
    """Import a command's function.

    Raises:
        InputError: If a package that its module imports is not installed; the message names the extra that installs it.
    """
    module, _, function = entry.target.partition(":")
    with missing_packages_as_input_errors(path, entry):
        return getattr(import_module(module), function)  # type: ignore[no-any-return]


@contextmanager
def missing_packages_as_input_errors(path: str, entry: Entry) -> Iterator[None]:
    """Convert the error of an import in the block to an error for the user.

    Raises:
        InputError: If a package is not installed. If masksmith needs it, the message names the extra that installs it;
            if other code needs it, such as a model's own code, the message names this code.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or ("." in error.name and error.name.startswith("masksmith")):
            raise  # The error names no package, or a module of masksmith itself is missing: an internal error.
        from masksmith_client._errors import InputError

        package, importer = error.name.partition(".")[0], _importer(error)
        if not importer.startswith("masksmith") and package not in _required_packages():
            raise InputError(f"{importer} needs {package}, which is not installed: pip install {package}") from error
        raise InputError(f"'masksmith {path}' needs {error.name}: pip install 'masksmith[{entry.extra}]'") from error


def _importer(error: ModuleNotFoundError) -> str:
    """Return the name of the module that imports the missing package: the last in the traceback besides importlib."""
    names = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((name for name in reversed(names) if not name.startswith("importlib")), "masksmith_client")


def _required_packages() -> set[str]:
    """Return the packages that masksmith or one of its extras requires."""
    requirements = importlib.metadata.requires("masksmith") or ()
    return {re.split(r"[^\w.-]", text, maxsplit=1)[0].replace("-", "_").lower() for text in requirements}


def build_command(name: str | None, function: Callable[..., Any]) -> Any:
    """Build a command from a function, as typer does."""
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name)(function)
    return typer.main.get_command(single)
