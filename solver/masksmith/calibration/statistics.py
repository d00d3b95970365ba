"""What was gathered: statistics of each layer, and the scores that they make."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith import scores
from masksmith._errors import ScoresError

Doubles = npt.NDArray[np.float64]
METADATA_KEY = "masksmith_calibration"


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """What data did to one layer; what was not gathered is None.

    Attributes:
        samples: Input rows seen: tokens, or patches of a convolution.
        norms: `[inputs]`, Euclidean norms of the inputs over all samples; kernels flattened in the weight's own order.
        gram: `[inputs, inputs]`, `X^T X`.
        activations: `[rows, inputs]`, a random choice of the samples.
        gradient: The mean of the batches' gradients of the loss, in the weight's shape.
        gradient_rms: The root of the mean of their squares: `taylor` of it is the mean of the batches' scores.
    """

    samples: int
    norms: Doubles | None = None
    gram: Doubles | None = None
    activations: npt.NDArray[np.float32] | None = None
    gradient: npt.NDArray[np.float32] | None = None
    gradient_rms: npt.NDArray[np.float32] | None = None


TENSORS = tuple(field.name for field in fields(LayerStatistics) if field.name != "samples")

NEEDS: Mapping[str, str] = {
    "wanda": "norms",
    "ria": "norms",
    "sparsegpt": "gram",
    "taylor": "gradient_rms",
    "sipp": "activations",
    "pfp": "activations",
}
"""What each score is made from."""


class Calibration(Mapping[str, LayerStatistics]):
    """Statistics by the names of the weights.

    Attributes:
        skipped: Layers that were asked for but say nothing, and why.
    """

    def __init__(self, layers: Mapping[str, LayerStatistics], skipped: Mapping[str, str] | None = None) -> None:
        self._layers = dict(layers)
        self.skipped = dict(skipped or {})

    def __getitem__(self, name: str) -> LayerStatistics:
        return self._layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __repr__(self) -> str:
        return f"<Calibration of {len(self)} layer(s)>"

    def score(self, kind: str, name: str, weight: Any, **options: Any) -> Any:
        """Score a weight by what was gathered for it.

        Args:
            kind: `wanda`, `ria`, `sparsegpt`, `taylor`, `sipp` or `pfp`.
            name: The weight's name.
            weight: The weight.
            options: Of the score.

        Raises:
            ScoresError: If the kind is unknown, the layer was not calibrated, or not for this score; or as the score
                does.
        """
        if kind not in NEEDS:
            raise ScoresError(f"{kind!r} is none of the scores {', '.join(NEEDS)}", name=name)
        if name not in self:
            reason = self.skipped.get(name, f"the calibration has {', '.join(list(self)[:4]) or 'no layer at all'}")
            raise ScoresError(f"not calibrated: {reason}", name=name)
        wanted = NEEDS[kind]
        given = getattr(self[name], wanted)
        if given is None:
            raise ScoresError(f"{kind} needs {wanted}, which were not gathered; see gather= of calibrate", name=name)
        return scores.by_name(kind, weight, given, wanted, name=name, **options)

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file: `NAME/norms` and so on, nothing that needs unpickling."""
        from safetensors.numpy import save_file

        found = {
            f"{name}/{kind}": np.ascontiguousarray(getattr(layer, kind))
            for name, layer in self._layers.items()
            for kind in TENSORS
            if getattr(layer, kind) is not None
        }
        samples = {name: layer.samples for name, layer in self._layers.items()}
        save_file(found, path, {METADATA_KEY: json.dumps({"samples": samples, "skipped": self.skipped})})
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what `save` wrote.

        Raises:
            ScoresError: If the file is no calibration.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "np") as file:
                told = json.loads((file.metadata() or {})[METADATA_KEY])
                found: dict[str, dict[str, Any]] = {name: {} for name in told["samples"]}
                for key in file.keys():  # noqa: SIM118 - it is no mapping
                    name, _, kind = key.rpartition("/")
                    found[name][kind] = file.get_tensor(key)
            layers = {name: LayerStatistics(told["samples"][name], **parts) for name, parts in found.items()}
            return cls(layers, told["skipped"])
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ScoresError(f"{path} is no calibration: {error}") from None
