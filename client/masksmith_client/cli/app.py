"""The commands, and what becomes of errors: one clear line and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from masksmith_client._errors import BadRequest, ClientError, Conflict, InputError, NotFound, Unauthorized
from masksmith_client._version import __version__

from . import apply, bench, diff, info, jobs, keys, parts, solve, up, verify, warmup
from .console import complain

# typer carries a click of its own since 0.20 or so; its exceptions are reached through the one that it exports.
UsageError: type[Any] = typer.BadParameter.__bases__[0]
ClickException: type[Any] = UsageError.__bases__[0]

app = typer.Typer(
    name="masksmith",
    help="Proved-optimal sparsity masks. The service is found by --url or MASKSMITH_URL, the key by MASKSMITH_TOKEN.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(up.up)
app.command()(solve.solve)
app.add_typer(jobs.app, name="jobs")
app.command()(verify.verify)
app.command()(bench.bench)
app.command()(apply.apply)
app.command()(diff.diff)
app.command()(info.info)
app.command()(warmup.warmup)
app.add_typer(keys.app, name="keys")
app.command()(parts.service)
app.command()(parts.worker)

BAD_INPUT = (InputError, BadRequest, NotFound, Conflict, Unauthorized)


@app.callback()
def main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
) -> None:
    """Stand in front of all commands."""
    if version:
        print(f"masksmith {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives the exit code: 0, 1 for failures, 2 for bad input, 130 after Ctrl-C."""
    try:
        code = app(arguments, prog_name="masksmith", standalone_mode=False)
    except UsageError as error:
        hint = f" (see '{error.ctx.command_path} --help')" if error.ctx else ""
        return complain(error.format_message().rstrip(".") + hint, 2)
    except ClickException as error:
        return complain(error.format_message(), error.exit_code)
    except BAD_INPUT as error:
        return complain(str(error), 2)
    except ClientError as error:
        return complain(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        return complain("interrupted", 130)
    except BrokenPipeError:
        # The reader of our output has gone; Python must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return complain(f"{error.filename or 'input/output'}: {error.strerror or error}", 1)
    return code if isinstance(code, int) else 0
