"""Calibration results: statistics of each layer, scores from them, and their file format."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith import scores
from masksmith._atomic_write import replaced_when_complete
from masksmith._errors import ScoresError
from masksmith.layouts.foreign_files import BEGINNING_BYTES, foreign_format

Doubles = npt.NDArray[np.float64]
METADATA_KEY = "masksmith_calibration"


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """Statistics of one layer; those that were not gathered are None.

    Attributes:
        samples: Number of input rows: tokens, or patches of a convolution.
        norms: `[inputs]`, Euclidean norms of the inputs over all samples. For a convolution, `inputs` is the flattened
            axis `in * kernel`, in the weight's order.
        gram: `[inputs, inputs]`, `X^T X`: for float64 inputs in float64, else in float32 for each call, then summed in
            float64.
        activations: `[rows, inputs]`, a random sample of the input rows.
        gradient: Mean of the batches' gradients of the loss, in the weight's shape.
        gradient_rms: Root mean square of the batches' gradients. The Taylor score computed from it equals the mean
            of the batches' scores (but not `scores.taylor` with `joint=True`).
    """

    samples: int
    norms: Doubles | None = None
    gram: Doubles | None = None
    activations: npt.NDArray[np.float32] | None = None
    gradient: npt.NDArray[np.float32] | None = None
    gradient_rms: npt.NDArray[np.float32] | None = None


STATISTIC_NAMES = tuple(field.name for field in fields(LayerStatistics) if field.name != "samples")
"""Names of the statistics; each is stored as a tensor."""

NEEDS: Mapping[str, str] = {
    "wanda": "norms",
    "ria": "norms",
    "sparsegpt": "gram",
    "taylor": "gradient_rms",
    "sipp": "activations",
    "pfp": "activations",
}
"""Statistic that each score needs, by the score's name."""
GATHERED_AS: Mapping[str, str] = {"gradient": "gradients", "gradient_rms": "gradients"}
"""The value of `gather=` in `calibrate` that gathers a statistic, for statistics whose name differs from this value."""


class Calibration(Mapping[str, LayerStatistics]):
    """Statistics by the names of the weights.

    If the model has a weight under several names, each of them can be looked up; iteration and `len` include only one.

    Attributes:
        skipped: For each layer without statistics: the name of its weight, and the reason. Layers that were not
            selected by the option `layers` of `calibrate` are not listed.
        shared_names: For a weight that the model has under several names: maps each other name to the name that has the
            statistics.
    """

    def __init__(
        self,
        layers: Mapping[str, LayerStatistics],
        skipped: Mapping[str, str] | None = None,
        shared_names: Mapping[str, str] | None = None,
    ) -> None:
        self._layers = dict(layers)
        self.skipped = dict(skipped or {})
        self.shared_names = dict(shared_names or {})

    def __getitem__(self, name: str) -> LayerStatistics:
        return self._layers[self.shared_names.get(name, name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __repr__(self) -> str:
        return f"<Calibration of {len(self)} layer(s)>"

    def score(self, kind: str, name: str, weight: Any, **options: Any) -> Any:
        """Score a weight with its statistics.

        Args:
            kind: Name of the score: `wanda`, `ria`, `sparsegpt`, `taylor`, `sipp` or `pfp`.
            name: The weight's name.
            weight: The weight.
            options: Options of the score.

        Raises:
            ScoresError: If the score is unknown, the layer was not calibrated, or its statistic for this score was not
                gathered; or whatever the score's function raises.
        """
        if kind not in NEEDS:
            raise ScoresError(f"unknown score {kind!r}; the known ones are {', '.join(NEEDS)}", name=name)
        if name not in self:
            layers = f"{len(self)} layer(s), such as {', '.join(list(self)[:4])}" if self else "no layers"
            reason = self.skipped.get(self.shared_names.get(name, name), f"the calibration has {layers}")
            raise ScoresError(f"not calibrated: {reason}", name=name)
        needed = NEEDS[kind]
        statistic = getattr(self[name], needed)
        if statistic is None:
            gather = GATHERED_AS.get(needed, needed)
            raise ScoresError(
                f"{kind} needs {needed!r}, which was not gathered: call calibrate(..., gather=[{gather!r}])", name=name
            )
        return scores.by_name(kind, weight, statistic, needed, name=name, **options)

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file with tensors `NAME/norms`, `NAME/gram` and so on; returns its path.

        If that fails, a file that is already there stays as it is.
        """
        from safetensors.numpy import save_file

        tensors = {
            f"{name}/{statistic}": np.ascontiguousarray(getattr(layer, statistic))
            for name, layer in self._layers.items()
            for statistic in STATISTIC_NAMES
            if getattr(layer, statistic) is not None
        }
        samples = {name: layer.samples for name, layer in self._layers.items()}
        metadata = {"samples": samples, "skipped": self.skipped, "shared_names": self.shared_names}
        with replaced_when_complete(Path(path)) as temporary:
            save_file(tensors, temporary, {METADATA_KEY: json.dumps(metadata)})
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a file that `save` wrote.

        Raises:
            ScoresError: If it is not a calibration file; the message says if it is a Git LFS pointer or the like.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "np") as file:
                metadata = json.loads((file.metadata() or {})[METADATA_KEY])
                statistics_of: dict[str, dict[str, Any]] = {name: {} for name in metadata["samples"]}
                for key in file.keys():  # noqa: SIM118 - it is not a mapping
                    name, _, statistic = key.rpartition("/")
                    statistics_of[name][statistic] = file.get_tensor(key)
            samples = metadata["samples"]
            layers = {name: LayerStatistics(samples[name], **values) for name, values in statistics_of.items()}
            return cls(layers, metadata["skipped"], metadata.get("shared_names"))
        except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ScoresError(f"{path} is not a calibration file: {_other_format(path) or error}") from None


def _other_format(path: str | Path) -> str | None:
    """Return what a file is, as in "it is a Git LFS pointer"; None if it may be safetensors, or is not recognized."""
    with open(path, "rb") as file:
        beginning = file.read(BEGINNING_BYTES)
    # In a safetensors file, 8 bytes with the size of the header precede the header, which is JSON.
    other_format = None if beginning[8:9] == b"{" else foreign_format(beginning)
    return None if other_format is None else f"it is {other_format}"
