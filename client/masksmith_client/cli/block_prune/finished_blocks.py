"""Files of the blocks that are finished: weights in the checkpoint's dtypes, packed masks, and the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from masksmith_client.checkpoints.choice import Choice, ChosenTensor
from masksmith_client.checkpoints.prune_method import PruneMethod
from masksmith_client.checkpoints.solved import SolvedTensor
from masksmith_wire.masks import pack, unpack

from .skeleton import TORCH_DTYPES

if TYPE_CHECKING:
    from masksmith.model_pruning import Part

MASK = "/mask"
REPORT = "report"


class FinishedBlocks:
    """A folder with one file for each finished block, in the order in which they run.

    Args:
        folder: The folder.
        choice: What is done with each tensor.
        method: Scores and update.
        parts: Tensors that the model has as parts of parameters.

    Attributes:
        reports: The blocks' reports, as JSON.
    """

    def __init__(self, folder: Path, choice: Choice, method: PruneMethod, parts: Mapping[str, Part]) -> None:
        from masksmith.model_pruning import read_tensors

        self._folder, self._choice, self._method, self._parts = folder, choice, method, parts
        self.reports: list[dict[str, Any]] = []
        while self._path(len(self.reports)).exists():
            self.reports.append(json.loads(read_tensors(self._path(len(self.reports)), ())[1][REPORT]))

    def write(self, place: int, report: Any, model: Any) -> None:
        """Write a block; it is finished once its file has its name.

        Raises:
            OSError: If the file cannot be written.
        """
        from masksmith.model_pruning import write_tensors

        tensors: dict[str, torch.Tensor] = {}
        for weight in report.weights:
            tensors[weight.name + MASK] = torch.from_numpy(pack(np.asarray(weight.mask)))
            if self._method.update is not None:
                dtype = getattr(torch, TORCH_DTYPES[self._choice.tensors[weight.name].dtype])
                tensors[weight.name] = self._values(model, weight.name).to(dtype)
        write_tensors(self._path(place), tensors, {REPORT: json.dumps(report.as_dict())})
        self.reports.append(report.as_dict())

    def _values(self, model: Any, name: str) -> torch.Tensor:
        part = self._parts.get(name)
        if part is None:
            return cast(torch.Tensor, model.get_parameter(name).detach())
        return part.view(model.get_parameter(part.parameter).detach())

    def solved(self, chosen: ChosenTensor) -> SolvedTensor:
        """Read mask, weights and proof of a tensor."""
        from masksmith.model_pruning import read_tensors

        place, report = self._places[chosen.name]
        names = [chosen.name + MASK, *([chosen.name] if self._method.update is not None else [])]
        tensors, _ = read_tensors(self._path(place), names)
        mask = unpack(tensors[chosen.name + MASK].numpy(), chosen.shape)
        updated = tensors.get(chosen.name)
        values = None if updated is None else bytes(updated.contiguous().view(torch.uint8).numpy().data)
        return SolvedTensor(chosen.name, mask, self._certificate(mask, report), values)

    @cached_property
    def _places(self) -> dict[str, tuple[int, dict[str, Any]]]:
        """Return the place of each weight's block, and the weight's report, by its name."""
        return {
            weight["name"]: (place, weight) for place, report in enumerate(self.reports) for weight in report["weights"]
        }

    def _certificate(self, mask: Any, report: dict[str, Any]) -> dict[str, Any]:
        counts = {"density": float(mask.mean()), "kept": int(np.count_nonzero(mask))}
        certificate: dict[str, Any] = {**report["proof"], **counts}
        if self._method.update is not None:
            errors = {key: report[key] for key in ("error", "masked_error", "energy", "update_s")}
            certificate["update"] = {"method": str(self._method.update), **errors}
        return certificate

    def _path(self, place: int) -> Path:
        return self._folder / f"block-{place:05}.safetensors"
