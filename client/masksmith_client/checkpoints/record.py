"""`masksmith.json`: what was done with each tensor of a pruned checkpoint, and the certificates of its masks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from masksmith_client.results.atomic_write import atomic_write
from masksmith_wire.output_names import MASKS_NAME, RECORD_NAME
from masksmith_wire.pruned_record import totals, versions

from .checkpoint import Checkpoint
from .choice import Choice
from .other_files import OtherFiles
from .prune_method import PruneMethod


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
        checkpoint: The checkpoint that was pruned.
        choice: What was done with each of its tensors.
        method: Scores and update; with a calibration text, also the text and the options of the blocks.
        certificates: Certificates of the solved tensors, by name; of tied tensors, one is solved.
        files: For each file of weights, by its name: its size, and its digests before and after pruning.
        others: The other files of the model: those that were copied, and those that were not.
        masks_digest: Digest of the masks file.
    """
    by_first_name = {checkpoint.ties.get(name, name): certificate for name, certificate in certificates.items()}
    tensors = []
    for name, tensor in choice.tensors.items():
        # Tied tensors share the certificate of the one that was solved.
        certificate = by_first_name.get(checkpoint.ties.get(name, name), {}) if tensor.reason is None else {}
        tensors.append(tensor.document() | dict(certificate))
    return {
        "format": 1,
        "model_type": (checkpoint.config or {}).get("model_type"),
        "scores": str(method.scores),
        "update": None if method.update is None else str(method.update),
        "calibration_text": None if method.text is None else method.text.document(),
        "blocks": None if method.text is None else method.blocks.document(),
        "versions": versions(),
        "totals": totals(tensors),
        "tensors": tensors,
        "inputs": {name: {"bytes": file["bytes"], "blake3": file["input"]} for name, file in files.items()},
        "outputs": {name: {"bytes": file["bytes"], "blake3": file["output"]} for name, file in files.items()}
        | {MASKS_NAME: {"blake3": masks_digest}},
        "copied": [str(path) for path in others.copied],
        "not_copied": [str(path) for path in others.not_copied],
        "notes": list(choice.notes),
    }


def write_record(output: Path, record: Mapping[str, Any]) -> None:
    """Write the record into an output directory."""
    with atomic_write(output / RECORD_NAME) as file:
        file.write(json.dumps(record, indent=2).encode() + b"\n")
