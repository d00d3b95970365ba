"""Build and run the command line; for an error that the user can fix, print a message and return an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from masksmith_client._version import __version__

from .advice import advise_commands
from .console import end_line, print_error
from .help_pages import add_details
from .lazy import add_commands

HELP = (
    "Sparsity masks that are proved optimal. Set the service by --url or MASKSMITH_URL, the token by MASKSMITH_TOKEN."
)

INTERRUPTED = 130
"""Exit code after Ctrl-C."""

# Newer versions of typer bundle click, so click's exceptions are found as base classes of `typer.BadParameter`.
UsageError: type[Any] = typer.BadParameter.__bases__[0]
ClickException: type[Any] = UsageError.__bases__[0]


def main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Handle the options before a command; without a command, print the help."""
    if version:
        print(f"masksmith {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def build() -> Any:
    """Build the command line from the table of commands."""
    root = typer.Typer(
        name="masksmith",
        help=HELP,
        invoke_without_command=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    root.callback()(main)
    group: Any = typer.main.get_command(root)
    add_details("", group)
    add_commands(group)
    return group


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0, 1 for failures, 2 for invalid input, 130 after Ctrl-C.

    Errors that the user can fix are printed. What the command has printed is written before this function returns.

    Raises:
        Exception: Internal errors, as they were raised.
    """
    code = _run(arguments)
    try:
        sys.stdout.flush()
    except OSError as error:
        _discard_output()
        if code or isinstance(error, BrokenPipeError):
            return code or 1
        return print_error(f"standard output: {error.strerror or error}", 1)
    return code


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = build()(arguments, prog_name="masksmith", standalone_mode=False)
    except UsageError as error:
        hint = f" (see '{error.ctx.command_path} --help')" if error.ctx else ""
        return print_error(_usage_message(error).rstrip(".") + hint, 2)
    except ClickException as error:
        return print_error(error.format_message(), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return 1
    except Exception as error:
        message, code = explain(error)
        if message is None:
            raise
        return print_error(message, code)
    if code == INTERRUPTED:  # If Ctrl-C comes while a command runs, typer returns this code.
        end_line()
        print_error("interrupted", INTERRUPTED)
    return code if isinstance(code, int) else 0  # A command that ends without a code returns None.


def _discard_output() -> None:
    """Replace stdout by the null device, since Python would try again at exit to write what stdout still holds."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage_message(error: Any) -> str:
    """Return the message of a usage error; the refused value is added to messages of pydantic, which do not have it."""
    from masksmith_wire.validation import reason

    message = str(error.format_message())
    details = error.__cause__.errors()[0] if hasattr(error.__cause__, "errors") else None
    if details is None or details["type"] == "value_error":
        return message.replace(": Value error, ", ": ")
    text = reason(details)
    return message.replace(text, f"{details['input']!r}: {text[:1].lower()}{text[1:]}")


def explain(error: Exception) -> tuple[str | None, int]:
    """Return message and exit code for an error that the user can fix; the message is None for internal errors.

    Errors that the user can fix are every `OSError`, and every exception with an integer attribute `exit_code`,
    whatever package defines it.
    """
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        return advise_commands(str(error)), code
    if isinstance(error, OSError):
        return f"{error.filename or 'input/output'}: {error.strerror or str(error) or type(error).__name__}", 1
    return None, 1
