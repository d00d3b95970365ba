"""`masksmith.json`: what was done with each tensor of a pruned checkpoint, and what proves it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from masksmith_client.results.atomic_write import atomic_write
from masksmith_wire.output_names import MASKS_NAME, RECORD_NAME
from masksmith_wire.pruned_record import totals, versions

from .checkpoint import Checkpoint
from .choice import Choice, ChosenTensor
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
        method: Scores and update, and the calibration text if there is one.
        certificates: Certificates by the name of the tensor that was solved.
        files: Size of each file of weights, and its digests before and after the pruning, by its name.
        others: The other files of the model: those that were copied, and those that were not.
        masks_digest: Digest of the masks file.
    """
    by_first_name = {checkpoint.ties.get(name, name): certificate for name, certificate in certificates.items()}
    tensors = []
    for name, tensor in choice.tensors.items():
        # Tied tensors are solved once, and share the certificate.
        certificate = by_first_name.get(checkpoint.ties.get(name, name), {}) if tensor.reason is None else {}
        tensors.append(tensor.document() | dict(certificate))
    for name, copied in checkpoint.unlisted.items():
        reason = "the index does not list it"
        tensors.append(ChosenTensor(name, copied.shape, copied.dtype, None, None, reason).document())
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
        "inputs": {name: {"bytes": line["bytes"], "blake3": line["input"]} for name, line in files.items()},
        "outputs": {name: {"bytes": line["bytes"], "blake3": line["output"]} for name, line in files.items()}
        | {MASKS_NAME: {"blake3": masks_digest}},
        "copied": [str(path) for path in others.copied],
        "not_copied": [str(path) for path in others.not_copied],
        "notes": list(choice.notes),
    }


def write_record(output: Path, record: Mapping[str, Any]) -> None:
    """Write the record into an output directory."""
    with atomic_write(output / RECORD_NAME) as file:
        file.write(json.dumps(record, indent=2).encode() + b"\n")
