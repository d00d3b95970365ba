"""What jobs need beside the weights: calibration files, calibrations in memory, or scores of one's own."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from masksmith.layouts import FLOAT_DTYPES
from masksmith_client._errors import InputError
from masksmith_wire.scores import KINDS, ScoreMethod, statistic_key, statistic_misfit
from masksmith_wire.updates import UpdateMethod

from .files import read_path
from .tensors import read_mapping
from .weights import Weight


@dataclass(frozen=True, slots=True)
class Statistic:
    """What a weight's scores are made from, ready to travel, and of what kind it is."""

    kind: str
    tensor: Weight


@dataclass(frozen=True, slots=True)
class Chosen:
    """What travels beside the weights, by their names: what scores are made from, and Gram matrices for updates."""

    statistics: dict[str, Statistic] = field(default_factory=dict)
    grams: dict[str, Weight] = field(default_factory=dict)


class Calibration:
    """Statistics of a model's layers.

    Args:
        source: A path of a calibration file, or a mapping of names to what `ms.calibrate` gathers, or to arrays: each
            weight's statistic itself.
        method: The scores that are made from it.
        update: The update that needs Gram matrices, if any.
        names: All weights of the model.

    Raises:
        InputError: If the scores take none or need one, or it is not this model's.
    """

    def __init__(
        self, source: object, method: ScoreMethod, names: Collection[str], update: UpdateMethod | None = None
    ) -> None:
        self._method, self._update = method, update
        if source is None:
            if not method.is_optional:
                raise InputError(f"{method} scores need a calibration: what ms.calibrate saved, or {method.kinds[0]}")
            if update is not None:
                raise InputError(f"{update.name} needs a calibration: Gram matrices, such as ms.calibrate saves")
        elif not method.kinds and update is None:
            raise InputError(f"scores {str(method)!r} are made from the weights alone: leave the calibration out")
        self._given = source is not None
        self._tensors = {} if source is None else {tensor.name: tensor for tensor in _read(source, method)}
        for key in self._tensors:
            name, _, kind = key.rpartition("/")
            layer = name if kind in KINDS and name else key
            if layer not in names:
                raise InputError(f"the calibration is for a layer {layer!r}, which the model does not have")

    def choose(self, weights: list[Weight], named: Collection[str]) -> tuple[Chosen, dict[str, str]]:
        """Find what each weight needs; weights without it are skipped, unless they were named.

        Raises:
            InputError: If one does not fit its weight, or a named weight or all of them have none.
        """
        chosen = Chosen()
        skipped: dict[str, str] = {}
        for weight in weights if self._given else ():
            reason = self._take(weight, chosen)
            if reason is not None and (weight.name in named or len(weights) == 1):
                raise InputError(f"{weight.name!r} is {reason}")
            if reason is not None:
                skipped[weight.name] = reason
        if weights and len(skipped) == len(weights):
            name, reason = next(iter(skipped.items()))
            raise InputError(f"none of {len(weights)} weight(s) is calibrated; {name!r}: {reason}")
        return chosen, skipped

    def _take(self, weight: Weight, chosen: Chosen) -> str | None:
        """Note what a weight needs, or say what the calibration lacks."""
        statistic = self._find(weight, self._method.kinds)
        if statistic is None and self._method.kinds:
            return self._reason(weight.name, self._method.kinds[-1])
        gram = None if self._update is None else self._find(weight, ("gram",))
        if self._update is not None and gram is None:
            return self._reason(weight.name, "gram")
        if gram is not None and weight.dtype not in FLOAT_DTYPES:
            raise InputError(f"{weight.name!r}: dtype {weight.dtype} cannot hold updated weights")
        if statistic is not None:
            chosen.statistics[weight.name] = statistic
        if gram is not None:
            chosen.grams[weight.name] = gram.tensor
        return None

    def _find(self, weight: Weight, kinds: Sequence[str]) -> Statistic | None:
        for kind in kinds:
            tensor = self._tensors.get(statistic_key(weight.name, kind))
            if tensor is None:
                continue
            fault = tensor.unsupported_reason or statistic_misfit(kind, tensor.shape, weight.shape, weight.layout)
            if tensor.dtype not in FLOAT_DTYPES:
                fault = f"{kind} of dtype {tensor.dtype}: expected one of {', '.join(sorted(FLOAT_DTYPES))}"
            if fault is not None:
                raise InputError(f"{weight.name!r}: {fault}")
            return Statistic(kind, replace(tensor, name=f"{weight.name}/{kind}"))
        return None

    def _reason(self, name: str, kind: str) -> str:
        return f"not calibrated: the calibration holds no {statistic_key(name, kind)!r}"


def _read(source: object, method: ScoreMethod) -> list[Weight]:
    if isinstance(source, (str, os.PathLike)):
        return read_path(Path(source))
    if not isinstance(source, Mapping):
        raise InputError(f"calibration is a path or a mapping of names, got a {type(source).__name__}")
    return [tensor for name, value in source.items() for tensor in _of_layer(name, value, method)]


def _of_layer(name: Any, value: Any, method: ScoreMethod) -> list[Weight]:
    if hasattr(value, "samples"):
        held = {kind: getattr(value, kind, None) for kind in KINDS}
        tensors = read_mapping({name: tensor for name, tensor in held.items() if tensor is not None})
        return [replace(tensor, name=statistic_key(name, tensor.name)) for tensor in tensors]
    [tensor] = read_mapping({name: value})
    return [replace(tensor, name=statistic_key(name, (method.kinds or ("gram",))[0]))]
