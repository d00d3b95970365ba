"""The command line, and what becomes of errors: one clear line and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from masksmith_client._version import __version__

from .console import complain
from .lazy import add_commands

HELP = "Proved-optimal sparsity masks. The service is found by --url or MASKSMITH_URL, the key by MASKSMITH_TOKEN."

# typer carries a click of its own since 0.20 or so; its exceptions are reached through the one that it exports.
UsageError: type[Any] = typer.BadParameter.__bases__[0]
ClickException: type[Any] = UsageError.__bases__[0]


def main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
) -> None:
    """Handle the options that come before a command."""
    if version:
        print(f"masksmith {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def build() -> Any:
    """Make the command line from the table of commands."""
    root = typer.Typer(
        name="masksmith",
        help=HELP,
        invoke_without_command=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    root.callback()(main)
    group: Any = typer.main.get_command(root)
    add_commands(group)
    return group


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives the exit code: 0, 1 for failures, 2 for bad input, 130 after Ctrl-C."""
    try:
        code = build()(arguments, prog_name="masksmith", standalone_mode=False)
    except UsageError as error:
        hint = f" (see '{error.ctx.command_path} --help')" if error.ctx else ""
        return complain(error.format_message().rstrip(".") + hint, 2)
    except ClickException as error:
        return complain(error.format_message(), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return complain("interrupted", 130)
    except BrokenPipeError:
        # The reader of our output has gone; Python must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        message, code = explain(error)
        if message is None:
            raise
        return complain(message, code)
    return code if isinstance(code, int) else 0


def explain(error: Exception) -> tuple[str | None, int]:
    """Give the message and the exit code for an error that is the user's to solve; no message for a defect of ours.

    An exception of any package is for the user if it has an integer attribute `exit_code`.
    """
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        return str(error), code
    if isinstance(error, OSError):
        return f"{error.filename or 'input/output'}: {error.strerror or error}", 1
    return None, 1
