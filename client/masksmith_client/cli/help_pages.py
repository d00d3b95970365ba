"""Changes typer's help pages: groups options and commands, adds patterns and examples, hides the types of flags."""

from __future__ import annotations

import shutil
from typing import Any

from .table import EXAMPLES, PANELS, PATTERNS

OPTION_PANELS = {
    "Which tensors": "layers exclude layout axis ragged view trust_remote_code",
    "Scores, budgets and updates": (
        "scores calibration calibration_text calibration_windows calibration_tokens budget floors update previous"
    ),
    "The job and its service": "url name label priority timeout_s time_limit_s local solver threads device",
    "Output": "output weights_out as_json measures spectrum",
}
"""Panels of options, with the names of the options' parameters; other options stay in typer's own panel."""
_PANEL_BY_OPTION = {name: panel for panel, names in OPTION_PANELS.items() for name in names.split()}
MIN_GROUPED = 12
"""A command with fewer options than this shows them in one list."""
MIN_TABLE_COLUMNS = 60
"""In a terminal with fewer columns, help has no tables, whose cells would shorten the names of options."""
NARROW_INDENT = 4


def panel_of(name: str) -> str:
    """Return the name of the panel of `masksmith --help` that lists a command or a group of commands."""
    return next(panel for panel, names in PANELS.items() if name in names)


def add_details(path: str, command: Any) -> None:
    """Change the help page of a command: group its options, hide the types of its flags, add patterns and examples.

    In a narrow terminal, the page is plain text instead, with each description below its option.

    Args:
        path: The command as in `EXAMPLES`, such as `jobs list`; empty for a group, which has no examples.
        command: The command or group.
    """
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    for option in options:
        if option.is_flag:
            option.metavar = ""
        if len(options) >= MIN_GROUPED and option.name in _PANEL_BY_OPTION:
            option.rich_help_panel = _PANEL_BY_OPTION[option.name]
    lines = [PATTERNS] if any(option.name == "pattern" for option in options) else []
    examples = EXAMPLES.get(path, ())
    if examples:
        lines += [f"Example{'s' * (len(examples) > 1)}:", *(f"  {line}" for line in examples)]
    command.epilog = "\n\n".join(lines) or None
    make_help_option = command.get_help_option

    # click creates `--help` when it parses the arguments, so this option is not among `params`.
    def help_option(context: Any) -> Any:
        option = make_help_option(context)
        if option is not None:
            option.metavar = ""
        return option

    command.get_help_option = help_option
    columns = shutil.get_terminal_size().columns
    if columns < MIN_TABLE_COLUMNS:
        _use_plain_text(command, columns)


def _use_plain_text(command: Any, columns: int) -> None:
    """Have click, instead of rich, write the help page of a command, with at most this many columns."""

    class NarrowFormatter(command.context_class.formatter_class):  # type: ignore[misc]
        def write_dl(self, rows: Any, col_max: int = NARROW_INDENT, col_spacing: int = 2) -> None:
            super().write_dl(rows, min(col_max, NARROW_INDENT), col_spacing)

    class NarrowContext(command.context_class):  # type: ignore[misc]
        formatter_class = NarrowFormatter

    command.context_class, command.rich_markup_mode = NarrowContext, None
    command.context_settings["terminal_width"] = columns
