"""Options that commands about checkpoints share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from masksmith_client._errors import InputError
from masksmith_client.checkpoints.choice import ChoiceOptions
from masksmith_client.checkpoints.patterns import TensorPatterns

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
TrustOption = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the checkpoint's own code, to watch its forward pass.")
]


def choice_options(
    patterns: TensorPatterns | None,
    layers: Sequence[str] | None,
    exclude: Sequence[str] | None,
    layout: Sequence[str] | None,
    trust_remote_code: bool,
    *,
    by_value: bool = False,
) -> ChoiceOptions:
    """Gather what the command line says about tensors.

    Raises:
        InputError: If a layout is not `NAME=AXES`.
    """
    axes: dict[str, str] = {}
    for text in layout or ():
        name, equals, words = text.partition("=")
        if not equals or not name or name in axes:
            reason = "is given twice" if name in axes else "is not NAME=AXES, such as 'w1=stack in out'"
            raise InputError(f"--layout {text!r} {reason}")
        axes[name] = words
    return ChoiceOptions(patterns, layers or (), exclude or (), axes, trust_remote_code, by_value)
