"""`masksmith bench`: measure sparse kernels against dense ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import JsonOption, UrlOption
from .naming import LabelOption, NameOption, PriorityOption, TimeoutOption

SUFFIXES = ".json, .csv, .md, .png, .svg, .pdf"


def bench(
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="NAME|PATH", help="MiniLM, Llama-3.1-8B, ..., or a checkpoint."),
    ] = None,
    shapes: Annotated[
        str | None, typer.Option("--shapes", metavar="OUTxIN[*N],...", help="Shapes of layers, and number of each.")
    ] = None,
    masks_of: Annotated[str | None, typer.Option("--masks-of", metavar="JOB", help="The masks of a job.")] = None,
    patterns: Annotated[
        str,
        typer.Option(
            "--patterns", "-p", metavar="A,B,...", help="Such as '2:4,block 16x16 25%,10%'; shares of kept entries."
        ),
    ] = "",
    batch: Annotated[str, typer.Option("--batch", "-b", metavar="N,M,...", help="Rows of activations.")] = "1,32,256",
    dtypes: Annotated[str, typer.Option("--dtypes", metavar="A,B,...", help="float32, bfloat16, ...")] = "float32",
    directions: Annotated[
        str, typer.Option("--directions", metavar="A,B", help="forward (X W^T), backward (dY W).")
    ] = "forward",
    kernels: Annotated[
        str | None, typer.Option("--kernels", metavar="A,B,...", help="Default: all that support device and pattern.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda; with --local also cuda:N.")] = "cpu",
    layers: Annotated[list[str] | None, typer.Option("--layers", metavar="GLOB", help="Only these weights.")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="GLOB", help="Without these weights.")
    ] = None,
    curves: Annotated[
        bool, typer.Option("--curves/--no-curves", help="Also measure other densities, to find the break-even.")
    ] = True,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Repetitions of each measurement.")] = 15,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of a kernel on a CPU.")] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed of weights and activations.")] = 0,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", metavar="FILE", help=f"Repeatable; the suffix selects the format: {SUFFIXES}."),
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="Measure in this process, without a service.")] = False,
    url: UrlOption = None,
    timeout_s: TimeoutOption = None,
    name: NameOption = None,
    label: LabelOption = None,
    priority: PriorityOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the speed-up of masks: sparse kernels against dense ones, for layers of a model or job or for shapes."""
    # Imported here, so that the help of the command does not import the client.
    from .bench_report import save_and_show
    from .bench_run import BenchOptions, measure

    options: BenchOptions = {
        "model": model,
        "shapes": shapes,
        "masks_of": masks_of,
        "patterns": patterns,
        "batch": batch,
        "dtypes": dtypes,
        "directions": directions,
        "kernels": kernels,
        "device": device,
        "layers": layers,
        "exclude": exclude,
        "curves": curves,
        "rounds": rounds,
        "threads": threads,
        "seed": seed,
        "name": name,
        "label": label,
        "priority": priority,
    }
    report = measure(options, output or [], local=local, url=url, timeout_s=timeout_s)
    save_and_show(report, output or [], as_json=as_json)
