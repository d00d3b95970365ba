"""`masksmith.json`: what was done with each tensor of a pruned checkpoint, and what proves it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from masksmith_client.results.atomic_write import atomic_write

from .checkpoint import Checkpoint
from .choice import Choice
from .other_files import OtherFiles
from .output_names import MASKS_NAME, RECORD_NAME
from .prune_method import PruneMethod

PACKAGES = ("masksmith", "numpy", "torch", "numba", "ortools")


def make_record(
    checkpoint: Checkpoint,
    choice: Choice,
    method: PruneMethod,
    certificates: Mapping[str, Mapping[str, Any]],
    files: Mapping[str, Mapping[str, Any]],
    others: OtherFiles,
    masks_digest: str,
) -> dict[str, Any]:
    """Make the record of a finished output.

    Args:
        checkpoint: What was pruned.
        choice: What was done with each of its tensors.
        method: Scores and update.
        certificates: What each solve proved, by the name that was solved.
        files: Size and digests of each file of weights.
        others: What was copied beside them, and what was not.
        masks_digest: Digest of the masks file.
    """
    proved = {checkpoint.ties.get(name, name): certificate for name, certificate in certificates.items()}
    tensors = [
        tensor.document() | dict(proved.get(checkpoint.ties.get(name, name), {}) if tensor.reason is None else {})
        for name, tensor in choice.tensors.items()
    ]
    return {
        "format": 1,
        "model_type": (checkpoint.config or {}).get("model_type"),
        "scores": str(method.scores),
        "update": None if method.update is None else str(method.update),
        "calibration_text": None if method.text is None else method.text.document(),
        "blocks": None if method.text is None else method.blocks.document(),
        "versions": _versions(),
        "totals": _totals(tensors),
        "tensors": tensors,
        "inputs": {name: {"bytes": line["bytes"], "blake3": line["input"]} for name, line in files.items()},
        "outputs": {name: {"bytes": line["bytes"], "blake3": line["output"]} for name, line in files.items()}
        | {MASKS_NAME: {"blake3": masks_digest}},
        "copied": [str(path) for path in others.copied],
        "not_copied": [str(path) for path in others.left],
        "notes": list(choice.notes),
    }


def write_record(output: Path, record: Mapping[str, Any]) -> None:
    """Write the record into an output directory."""
    with atomic_write(output / RECORD_NAME) as file:
        file.write(json.dumps(record, indent=2).encode() + b"\n")


def _versions() -> dict[str, str]:
    versions: dict[str, str] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _totals(tensors: list[dict[str, Any]]) -> dict[str, Any]:
    masked = [tensor for tensor in tensors if tensor["masked"]]
    entries = sum(math.prod(tensor["shape"]) for tensor in masked)
    objective, bound = (math.fsum(tensor[key] for tensor in masked) for key in ("objective", "upper_bound"))
    kept = sum(tensor["kept"] for tensor in masked)
    parameters = sum(math.prod(tensor["shape"]) for tensor in tensors)
    return {
        "tensors": len(tensors),
        "masked": len(masked),
        "optimal": sum(tensor["status"] == "optimal" for tensor in masked),
        "parameters": parameters,
        "masked_parameters": entries,
        "kept": kept,
        "density": kept / entries if entries else None,
        "zeros": (entries - kept) / parameters if parameters else None,
        "objective": objective,
        "upper_bound": bound,
        "gap": (bound - objective) / bound if bound else 0.0,
    }
