"""Read the statistics that scores and updates need, from files or memory; scores of the caller count as a statistic."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from blake3 import blake3

from masksmith.layouts import FLOAT_DTYPES
from masksmith_client._errors import InputError
from masksmith_wire.scores import KINDS, ScoreMethod, missing_reason, statistic_key, statistic_mismatch
from masksmith_wire.updates import UpdateMethod

from .files import list_tensors
from .streamed_tensor import StreamedTensor, flat_shape
from .tensors import read_mapping


@dataclass(frozen=True, slots=True)
class Statistic:
    """A tensor that a weight's scores or update are computed from, and its kind, such as `norms` or `gram`."""

    kind: str
    tensor: StreamedTensor


@dataclass(frozen=True, slots=True)
class AuxiliaryTensors:
    """Tensors uploaded with the weights, by the weights' names: statistics for scores, Gram matrices for updates."""

    statistics: dict[str, Statistic] = field(default_factory=dict)
    grams: dict[str, StreamedTensor] = field(default_factory=dict)

    @property
    def tensors(self) -> list[StreamedTensor]:
        """Statistics and Gram matrices, without duplicates, named by their keys in a calibration file."""
        statistics = [statistic.tensor for statistic in self.statistics.values()]
        return list({tensor.name: tensor for tensor in [*statistics, *self.grams.values()]}.values())

    def digest(self) -> str | None:
        """Return the BLAKE3 digest of the names and digests of all `tensors`, in hex; None if there are none."""
        hasher = blake3()
        for tensor in sorted(self.tensors, key=lambda tensor: tensor.name):
            hasher.update(f"{tensor.name}\n{tensor.digest()}\n".encode())
        return str(hasher.hexdigest()) if self.tensors else None


class CalibrationReader:
    """Reads the statistics of a model's layers, and finds those of each weight.

    Args:
        source: The path of a calibration file; or a mapping of names to the layers' statistics as
            `masksmith.calibrate` returns them, or to arrays; or the `AuxiliaryTensors` of another reader; or None.
        method: The method by which scores are computed from the statistics.
        names: Names of all weights of the model.
        update: The update method, which needs Gram matrices; None without an update.
        tied: The other names of a parameter, by name; a statistic that is missing under one name is taken from another.
            Under several names it must be the same, since the parameter gets one mask.

    Raises:
        InputError: If a calibration is needed and missing, is passed and not needed, cannot be read, or has a layer
            that the model does not have.
    """

    def __init__(
        self,
        source: object,
        method: ScoreMethod,
        names: Collection[str],
        update: UpdateMethod | None = None,
        tied: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._method, self._update, self._tied = method, update, tied or {}
        if source is None:
            if method.needs_statistic:
                raise InputError(
                    f"{method} scores need a calibration: a file saved by masksmith.calibrate, or {method.kinds[0]}"
                )
            if update is not None:
                raise InputError(
                    f"{update.name} needs a calibration with Gram matrices, as masksmith.calibrate saves them"
                )
        elif not method.kinds and update is None:
            raise InputError(f"scores {str(method)!r} use the weights alone: leave the calibration out")
        self._has_calibration = source is not None
        self._digests: dict[str, str] = {}
        self._tensors = {} if source is None else {tensor.name: tensor for tensor in _read_source(source, method)}
        for key in self._tensors:
            name, _, kind = key.rpartition("/")
            layer = name if kind in KINDS and name else key
            if layer not in names:
                raise InputError(f"the calibration is for a layer {layer!r}, which the model does not have")

    def match(
        self, weights: list[StreamedTensor], required_names: Collection[str]
    ) -> tuple[AuxiliaryTensors, dict[str, str]]:
        """Look up the statistics of each weight as `find` does; refuse a weight without them if it must not be skipped.

        Args:
            weights: The weights to mask.
            required_names: Names of weights that must not be skipped: the caller selected them by their full names.

        Returns:
            The statistics; and the reason for each weight without statistics, by name.

        Raises:
            InputError: As `find` does; also if a weight in `required_names`, the only weight, or every weight lacks
                statistics.
        """
        auxiliary, reasons = self.find(weights)
        for name, reason in reasons.items():
            if name in required_names or len(weights) == 1:
                raise InputError(f"{name!r} is {reason}")
        if weights and len(reasons) == len(weights):
            name, reason = next(iter(reasons.items()))
            raise InputError(f"none of {len(weights)} weight(s) is calibrated; {name!r}: {reason}")
        return auxiliary, reasons

    def find(self, weights: list[StreamedTensor]) -> tuple[AuxiliaryTensors, dict[str, str]]:
        """Look up the statistics of each weight.

        Returns:
            The statistics; and the reason for each weight that lacks one, by name. Without calibration both are empty.

        Raises:
            InputError: If a statistic does not fit its weight, the weight's dtype cannot hold updated values, or tied
                weights have different statistics.
        """
        auxiliary = AuxiliaryTensors()
        reasons = {weight.name: self._add(weight, auxiliary) for weight in weights if self._has_calibration}
        return auxiliary, {name: reason for name, reason in reasons.items() if reason is not None}

    def _add(self, weight: StreamedTensor, auxiliary: AuxiliaryTensors) -> str | None:
        """Add a weight's statistics to `auxiliary` and return None; if one is missing, only return the reason."""
        statistic = self._find(weight, self._method.kinds)
        if statistic is None and self._method.kinds:
            return missing_reason(weight.name, self._method.kinds[-1])
        gram = None if self._update is None else self._find(weight, ("gram",))
        if self._update is not None and gram is None:
            return missing_reason(weight.name, "gram")
        if gram is not None and weight.dtype not in FLOAT_DTYPES:
            raise InputError(f"{weight.name!r}: dtype {weight.dtype} cannot hold updated weights; exclude it")
        if statistic is not None:
            auxiliary.statistics[weight.name] = statistic
        if gram is not None:
            auxiliary.grams[weight.name] = gram.tensor
        return None

    def _find(self, weight: StreamedTensor, kinds: Sequence[str]) -> Statistic | None:
        """Return the first of these kinds of statistic that the calibration has for a weight; None if it has none.

        A statistic that is found under another name of the parameter is renamed to the weight's own name.

        Raises:
            InputError: If the statistic does not fit the weight, or the names of the parameter have different ones.
        """
        for kind in kinds:
            names = [
                name
                for name in (weight.name, *self._tied.get(weight.name, ()))
                if statistic_key(name, kind) in self._tensors
            ]
            if not names:
                continue
            self._check_is_one(names, kind)
            tensor = self._tensors[statistic_key(names[0], kind)]
            if kind == "scores" and flat_shape(tensor.shape) == weight.shape:
                tensor = replace(tensor, shape=weight.shape)  # the scores of a convolution that is viewed as flat
            reason = tensor.unsupported_reason or statistic_mismatch(kind, tensor.shape, weight.shape, weight.layout)
            if tensor.dtype not in FLOAT_DTYPES:
                reason = f"{kind} of dtype {tensor.dtype}: expected one of {', '.join(sorted(FLOAT_DTYPES))}"
            if reason is not None:
                raise InputError(f"{weight.name!r}: {reason}")
            return Statistic(kind, replace(tensor, name=statistic_key(weight.name, kind)))
        return None

    def _check_is_one(self, names: Sequence[str], kind: str) -> None:
        """Refuse different statistics of one kind under several names of a parameter, which gets one mask."""
        for name in names[1:]:
            if self._digest(statistic_key(name, kind)) != self._digest(statistic_key(names[0], kind)):
                example = ", such as the sum of their Gram matrices" if kind == "gram" else ""
                raise InputError(
                    f"{names[0]!r} and {name!r} are tied, so both get one mask, and their {kind} differ: give both the "
                    f"same{example}"
                )

    def _digest(self, key: str) -> str:
        if key not in self._digests:
            self._digests[key] = self._tensors[key].digest()
        return self._digests[key]


def _read_source(source: object, method: ScoreMethod) -> list[StreamedTensor]:
    if isinstance(source, (str, os.PathLike)):
        return list_tensors(Path(source))
    if isinstance(source, AuxiliaryTensors):
        return source.tensors
    if not isinstance(source, Mapping):
        raise InputError(f"calibration must be a path or a mapping of names, not a {type(source).__name__}")
    return [tensor for name, value in source.items() for tensor in _layer_tensors(name, value, method)]


def _layer_tensors(name: Any, value: Any, method: ScoreMethod) -> list[StreamedTensor]:
    # The statistics that `masksmith.calibrate` returns are recognised by an attribute, since their class needs torch.
    if hasattr(value, "samples"):
        arrays = {kind: getattr(value, kind, None) for kind in KINDS}
        tensors = read_mapping({kind: array for kind, array in arrays.items() if array is not None})
        return [replace(tensor, name=statistic_key(name, tensor.name)) for tensor in tensors]
    # A single array is the statistic that the scores prefer; if they need none, it is a Gram matrix for the update.
    kind = method.kinds[0] if method.kinds else "gram"
    [tensor] = read_mapping({name: value})
    return [replace(tensor, name=statistic_key(name, kind))]
