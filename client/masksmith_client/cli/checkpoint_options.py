"""Options that commands about checkpoints share, and functions that parse these options.

Other modules of the client are imported inside functions, so that the help of a command does not import them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from masksmith.patterns import Axis, PatternError, Ragged, TensorPatterns

if TYPE_CHECKING:
    from masksmith_client.checkpoints.choice import ChoiceOptions

SCORE_METHODS = "magnitude, given, wanda, 'ria power=0.7', sparsegpt, taylor, sipp, pfp"
ScoresOption = Annotated[str, typer.Option(metavar="METHOD", help=f"{SCORE_METHODS}.")]
CalibrationOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="A calibration saved by masksmith.calibrate; with '--scores given', a file of scores."
    ),
]
UpdateOption = Annotated[
    str | None, typer.Option(metavar="METHOD", help="Update the kept weights: reconstruct, 'admm penalty=0.1'.")
]
LayersOption = Annotated[
    list[str] | None, typer.Option("--layers", metavar="GLOB", help="Only these tensors; repeatable.")
]
ExcludeOption = Annotated[
    list[str] | None, typer.Option("--exclude", metavar="GLOB", help="Not these tensors; repeatable.")
]
LayoutOption = Annotated[
    list[str] | None,
    typer.Option("--layout", metavar="NAME=AXES", help="A tensor's axes, such as 'w1=stack in out'; repeatable."),
]
AxisOption = Annotated[Axis, typer.Option(help="Dimension along which plain n:m groups run.")]
RaggedOption = Annotated[Ragged, typer.Option(help="Treatment of edges that no whole tile covers.")]
TrustOption = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the checkpoint's own code, to watch its forward pass.")
]


def parse_patterns(texts: Sequence[str], axis: Axis = "in", ragged: Ragged = "pad") -> TensorPatterns:
    """Read patterns such as `2:4` and `mlp=transposable 8:16`.

    Raises:
        InputError: If there is no pattern, a pattern is malformed, or two patterns are for the same tensors.
    """
    from masksmith_client._errors import as_input_errors

    with as_input_errors(PatternError):
        return TensorPatterns.parse(texts, axis, ragged)


def parse_layouts(texts: Sequence[str] | None) -> dict[str, str]:
    """Split texts such as `w1=stack in out` into names and axes; return the axes, which stay texts, by name.

    Raises:
        InputError: If a text is not `NAME=AXES`, or if a name is given twice.
    """
    from masksmith_client._errors import InputError

    layouts: dict[str, str] = {}
    for text in texts or ():
        name, equals, layout = text.rpartition("=")  # Names may have a `=`, axes do not.
        if not equals or not name or name in layouts:
            reason = "is given twice" if name in layouts else "is not NAME=AXES, such as 'w1=stack in out'"
            raise InputError(f"--layout {text!r} {reason}")
        layouts[name] = layout
    return layouts


def choice_options(
    patterns: TensorPatterns | None,
    layers: Sequence[str] | None,
    exclude: Sequence[str] | None,
    layout: Sequence[str] | None,
    trust_remote_code: bool,
    *,
    quantised_as_floats: bool = False,
) -> ChoiceOptions:
    """Return the options that select tensors and set their patterns and layouts; see `ChoiceOptions`.

    Raises:
        InputError: As `parse_layouts` does.
    """
    from masksmith_client.checkpoints.choice import ChoiceOptions

    return ChoiceOptions(
        patterns, layers or (), exclude or (), parse_layouts(layout), trust_remote_code, quantised_as_floats
    )
