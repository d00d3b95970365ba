"""Validates names, labels and priorities that callers give to jobs; derives a job's default name from its weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from masksmith_client._errors import InputError
from masksmith_wire.names import JobDescription
from masksmith_wire.output_names import is_index_name
from masksmith_wire.priorities import PriorityName


def describe(
    name: str | None, labels: Mapping[str, str] | None, priority: PriorityName | None = None
) -> JobDescription:
    """Make a job's description from a name, labels and a priority, validated by the service's own rules.

    The default priority is `normal`.

    Raises:
        InputError: If the name, a label or the number of labels breaks a rule, the labels are no mapping, or the
            priority is unknown.
    """
    # The validation refuses labels of another type than a mapping.
    label_document = dict(labels) if isinstance(labels, Mapping) else labels
    try:
        return JobDescription.model_validate(
            {"name": name, "labels": label_document or None, "priority": priority or "normal"}
        )
    except ValidationError as error:
        first = error.errors()[0]
        member, *key = first["loc"]
        place = f"label {str(key[0])[:80]!r}" if key else str(member)
        reason = first["ctx"]["error"] if first["type"] == "value_error" else first["msg"].lower()
        raise InputError(f"{place}: {reason}") from None


def subject_of_weights(weights: object) -> str | None:
    """Return the name of the weights' file or directory, or of a module's class; None for other weights.

    For the index of a checkpoint, return the name of the directory that has the index.
    """
    if isinstance(weights, (str, os.PathLike)):
        # Symbolic links are not resolved: in a download cache they lead to files that are named by a digest.
        path = Path(os.path.abspath(weights))
        return path.parent.name if is_index_name(path.name) else path.name
    is_module = callable(getattr(weights, "state_dict", None)) and not isinstance(weights, Mapping)
    return type(weights).__name__ if is_module else None
