"""Files of finished blocks, one for each block.

A file has the packed masks of the block's pruned weights and the block's report; with an update, also the values of
these weights, in the dtypes of the checkpoint.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from masksmith_client.checkpoints.choice import Choice, ChosenTensor
from masksmith_client.checkpoints.prune_method import PruneMethod
from masksmith_client.checkpoints.solved import SolvedTensor
from masksmith_wire.json_text import parse_json
from masksmith_wire.masks import pack, unpack

from .skeleton import TORCH_DTYPES

if TYPE_CHECKING:
    from masksmith.model_pruning import Part

MASK_SUFFIX = "/mask"
REPORT_KEY = "report"


class FinishedBlocks:
    """A folder with one file for each finished block, numbered in the order in which the blocks run.

    Args:
        folder: The folder.
        choice: Which tensors are pruned, and how.
        method: Scores and update.
        parts: Tensors that the model has as parts of parameters, by name.

    Attributes:
        reports: The finished blocks' reports as JSON documents, in the order of the blocks.
    """

    def __init__(self, folder: Path, choice: Choice, method: PruneMethod, parts: Mapping[str, Part]) -> None:
        from masksmith.model_pruning import read_tensors

        self._folder, self._choice, self._method, self._parts = folder, choice, method, parts
        self.reports: list[dict[str, Any]] = []
        while self._path(len(self.reports)).exists():
            self.reports.append(parse_json(read_tensors(self._path(len(self.reports)), ())[1][REPORT_KEY]))

    def check(self) -> None:
        """Check the digests of all files.

        Raises:
            PruningError: If a file has other contents than `write` gave it.
        """
        from masksmith.model_pruning import check_tensors

        for position in range(len(self.reports)):
            check_tensors(self._path(position))

    def write(self, position: int, report: Any, model: Any) -> None:
        """Write the file of the next block, which is the one at this position, and add its report to `reports`.

        The block is finished when its file exists, since a file gets its name only when it is complete.

        Raises:
            PruningError: If an updated value overflows in the weight's dtype in the checkpoint.
            OSError: If the file cannot be written.
        """
        from masksmith.model_pruning import write_tensors

        tensors: dict[str, torch.Tensor] = {}
        for weight in report.weights:
            tensors[weight.name + MASK_SUFFIX] = torch.from_numpy(pack(np.asarray(weight.mask)))
            if self._method.update is not None:
                tensors[weight.name] = self._stored_values(model, weight.name)
        write_tensors(self._path(position), tensors, {REPORT_KEY: json.dumps(report.as_dict())})
        self.reports.append(report.as_dict())

    def _stored_values(self, model: Any, name: str) -> torch.Tensor:
        """Return the values of a weight in its dtype in the checkpoint, whose range may be smaller than the model's."""
        from masksmith import PruningError

        values, dtype = self._values(model, name), TORCH_DTYPES[self._choice.tensors[name].dtype]
        stored_values = values.to(getattr(torch, dtype))
        if not bool(stored_values.isfinite().all()):
            largest = float(values.abs().max())
            is_finite = math.isfinite(largest)
            reason = f"reach {largest:g}, which overflows in {dtype}" if is_finite else "contain NaN or infinity"
            raise PruningError(f"its updated values {reason}", name)
        return stored_values

    def _values(self, model: Any, name: str) -> torch.Tensor:
        """Return the values of a weight: those of a parameter of the model, or of a part of one."""
        part = self._parts.get(name)
        if part is None:
            return cast(torch.Tensor, model.get_parameter(name).detach())
        return part.view(model.get_parameter(part.parameter).detach())

    def read(self, chosen: ChosenTensor) -> SolvedTensor:
        """Read the mask and proof of a tensor of a finished block; with an update, also the tensor's values."""
        from masksmith.model_pruning import read_tensors

        position, report = self._position_and_report[chosen.name]
        names = [chosen.name + MASK_SUFFIX, *([chosen.name] if self._method.update is not None else [])]
        tensors, _ = read_tensors(self._path(position), names)
        mask = unpack(tensors[chosen.name + MASK_SUFFIX].numpy(), chosen.shape)
        updated = tensors.get(chosen.name)
        values = None if updated is None else bytes(updated.contiguous().view(torch.uint8).numpy().data)
        return SolvedTensor(chosen.name, mask, self._certificate(mask, report), values)

    @cached_property
    def _position_and_report(self) -> dict[str, tuple[int, dict[str, Any]]]:
        """Position of each weight's block, and the weight's report, by name; computed once, after the last `write`."""
        return {
            weight["name"]: (position, weight)
            for position, report in enumerate(self.reports)
            for weight in report["weights"]
        }

    def _certificate(self, mask: Any, report: dict[str, Any]) -> dict[str, Any]:
        density, kept = float(mask.mean()), int(np.count_nonzero(mask))
        certificate: dict[str, Any] = {**report["proof"], "density": density, "kept": kept}
        if self._method.update is not None:
            errors = {key: report[key] for key in ("error", "masked_error", "energy", "update_s")}
            certificate["update"] = {"method": str(self._method.update), **errors}
        return certificate

    def _path(self, position: int) -> Path:
        return self._folder / f"block-{position:05}.safetensors"
