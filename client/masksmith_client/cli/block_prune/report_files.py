"""The report of a model that is pruned block by block: JSON, and a page that shows it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from masksmith_client.checkpoints.prune_method import PruneMethod
from masksmith_client.results.atomic_write import atomic_write
from masksmith_wire.json_text import parse_json
from masksmith_wire.output_names import BLOCK_PAGE_NAME, BLOCK_REPORT_NAME
from masksmith_wire.quantities import count_text, duration_text

from .charts import bar_chart, line_chart

ORDER_TEXTS = {"together": "together", "sequential": "one group after the other"}
PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --first: #b45309; --second: #1d4ed8; --grid: #8884; }
@media (prefers-color-scheme: dark) { :root { --first: #fbbf24; --second: #93c5fd; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
svg { width: 100%; min-width: 36rem; height: auto; } svg text { font-size: 11px; fill: currentColor; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.first { stroke: var(--first); fill: none; } .second { stroke: var(--second); fill: none; }
circle.first, rect.first { fill: var(--first); } circle.second, rect.second { fill: var(--second); }
</style>
<h1>$title</h1>
<p>$summary</p>
$without_data
<h2>Error of each block's output</h2>
<p>Mean relative squared error of a token's output, compared with the output of the dense model: before the block is
pruned, with the blocks before it already pruned; and after.</p>
<div class="scroll">$errors</div>
<h2>Seconds of each block</h2>
<div class="scroll">$seconds</div>
<h2>Blocks</h2>
<div class="scroll">$blocks</div>
<h2>Weights</h2>
<p>Relative squared error of each weight's output on the calibration data: "error masked" with the original
values and the mask before the update, which may change the mask; "error updated" after the update, before the block is
tuned.</p>
<div class="scroll">$weights</div>
</html>
""")


def write_report(
    folder: Path, block_description: str, block_count: int, method: PruneMethod, reports: Sequence[Mapping[str, Any]]
) -> None:
    """Write into a folder the report of the finished blocks, as JSON and as a page.

    Args:
        folder: The output.
        block_description: The model's blocks and their share of the weights, such as "32 blocks model.layers of
            LlamaDecoderLayer, 97%".
        block_count: Number of all blocks.
        method: How the blocks are pruned; it has a calibration text.
        reports: The reports of the finished blocks, as JSON.

    Raises:
        OSError: If a file cannot be written.
    """
    assert method.text is not None
    document = {
        "format": 1,
        "block_list": block_description,  # A phrase; `blocks` is the list.
        "count": block_count,
        "scores": str(method.scores),
        "update": None if method.update is None else str(method.update),
        "calibration_text": method.text.document(),
        "options": method.blocks.document(),
        "blocks": list(reports),
    }
    with atomic_write(folder / BLOCK_REPORT_NAME) as file:
        file.write(json.dumps(document, indent=2).encode() + b"\n")
    with atomic_write(folder / BLOCK_PAGE_NAME) as file:
        file.write(page(document).encode())


def blocks_not_tuned(folder: Path) -> list[str]:
    """Read the report in an output, and describe the blocks that could not be tuned, with reasons."""
    blocks = parse_json((folder / BLOCK_REPORT_NAME).read_bytes())["blocks"]
    return [
        f"{block['name']} is not tuned, and keeps its weights from before the tuning: {block['tuning']['stopped']}"
        for block in blocks
        if block["tuning"] is not None and block["tuning"].get("stopped") is not None
    ]


def page(document: Mapping[str, Any]) -> str:
    """Return a report as an HTML page that needs no other file and no network."""
    blocks = document["blocks"]
    names = [block["name"] for block in blocks]
    lines = {
        "before the block is pruned": [block["error_before"] for block in blocks],
        "after it is pruned": [block["error_after"] for block in blocks],
    }
    return PAGE.substitute(
        title="Pruned block by block",
        summary=escape(_summary(document)),
        without_data=_without_data(blocks),
        errors=line_chart(names, lines),
        seconds=bar_chart(names, [block["seconds"] for block in blocks]),
        blocks=_table(("block", "weights", "error before", "error after", "gain of updates", "tuning", "time"),
                      [_block_row(block) for block in blocks]),
        weights=_table(("weight", "pattern", "status", "retained", "tokens", "error masked", "error updated"),
                       [_weight_row(weight) for block in blocks for weight in block["weights"]]),
    )  # fmt: skip


def _summary(document: Mapping[str, Any]) -> str:
    blocks, text, options = document["blocks"], document["calibration_text"], document["options"]
    seconds = math.fsum(block["seconds"] for block in blocks)
    parts = [
        f"{document['block_list']} of the weights",  # The description ends with a share, such as "97%".
        f"{len(blocks)} of {document['count']} blocks finished in {duration_text(seconds)}",
        f"scores {document['scores']}",
        f"update {document['update'] or 'none'}",
        f"statistics of a block's weights gathered {ORDER_TEXTS[options['order']]}",
        f"{options['tune_steps']} steps of tuning",
        *_measured_tokens(blocks),
        f"{count_text(text['windows'])} windows of {count_text(text['tokens'])} tokens (text {text['blake3'][:12]})",
    ]
    return ", ".join(parts) + "."


def _measured_tokens(blocks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the text that says on how many tokens errors were measured; none for reports of earlier versions."""
    counts = {block["measured_tokens"] for block in blocks if "measured_tokens" in block}
    return [f"errors measured on {count_text(max(counts))} tokens"] if counts else []


def _without_data(blocks: Sequence[Mapping[str, Any]]) -> str:
    """Return a list of the matrices that were masked without data; empty if there are none."""
    reasons = {name: reason for block in blocks for weight in block["weights"]
               for name, reason in weight["without_data"].items()}  # fmt: skip
    if not reasons:
        return ""
    items = "".join(f"<li>{escape(name)}: {escape(reason)}</li>" for name, reason in reasons.items())
    return f"<h2>Masked without data</h2><ul>{items}</ul>"


def _block_row(block: Mapping[str, Any]) -> tuple[str, ...]:
    masked_error = math.fsum(weight["masked_error"] for weight in block["weights"])
    updated_error = math.fsum(weight["error"] for weight in block["weights"])
    return (
        block["name"],
        str(len(block["weights"])),
        f"{block['error_before']:.3%}",
        f"{block['error_after']:.3%}",
        # Without an update, both errors are equal.
        f"{masked_error / updated_error:.2f}x" if updated_error and masked_error != updated_error else "-",
        _tuning_text(block["tuning"]),
        duration_text(block["seconds"]),
    )


def _tuning_text(tuning: Mapping[str, Any] | None) -> str:
    if tuning is None:
        return "-"
    if tuning.get("stopped") is not None:
        return f"not tuned: {tuning['stopped']}"
    return f"{tuning['error_before']:.3%} to {tuning['error_after']:.3%}"


def _weight_row(weight: Mapping[str, Any]) -> tuple[str, ...]:
    squared_norm = weight["energy"]
    return (
        weight["name"],
        weight["pattern"],
        weight["proof"]["status"],
        f"{weight['proof']['retained']:.2%}",
        count_text(min(weight["tokens"]))
        if len(weight["tokens"]) == 1
        else f"{count_text(min(weight['tokens']))} to {count_text(max(weight['tokens']))}",
        f"{weight['masked_error'] / squared_norm:.3%}" if squared_norm else "-",
        f"{weight['error'] / squared_norm:.3%}" if squared_norm else "-",
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{escape(text)}</th>" for text in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
