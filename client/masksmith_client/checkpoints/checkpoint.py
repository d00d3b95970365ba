"""A checkpoint on disk: a directory, an index or a single file, and its config. Opening it loads no tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from masksmith_client._errors import InputError
from masksmith_wire.headers import Header
from masksmith_wire.output_names import is_index_name

from .config import CONFIG_NAME, find_contradiction, read_config
from .files import find_weights, is_listed
from .index import Shards, read_shards
from .order import natural_key
from .quantised import is_scaled_int8, quantisation_message, quantisation_settings, uncounted_zeros_message
from .scaled_tensor import Scale, ScaledTensor
from .scales import find_scales
from .stored_values import FLOAT8_DTYPES
from .tensors import Tensor
from .ties import absent_ties, declared_ties, stored_ties, tied_by_config
from .traced import has_matrices_of_config_model


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: its files, its config, and the tensors in them.

    Attributes:
        path: The path that was opened.
        weights: The `.safetensors` file or the index that was found at this path.
        tensors: Tensors by name, sorted by `natural_key`; with an index, each in the file that the index names for it.
        headers: Headers by file.
        config: The model's `config.json`; None if it has none.
        unlisted: Members of `tensors` that are in a file, but not in the index.
        duplicates: Maps a tensor's name to the files that contain the tensor, besides the one that the index names.
    """

    path: Path
    weights: Path
    tensors: Mapping[str, Tensor]
    headers: Mapping[Path, Header]
    config: Mapping[str, Any] | None = None
    unlisted: Mapping[str, Tensor] = field(default_factory=dict)
    duplicates: Mapping[str, list[Path]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> Checkpoint:
        """Read headers, index and config.

        Raises:
            InputError: If weights are missing, or something is unreadable or contradictory; the message names it.
        """
        weights = find_weights(path)
        is_index = is_index_name(weights.name)
        shards = read_shards(weights, is_index=is_index)
        config = read_config(weights.parent)
        if config is not None and (is_index or not is_listed(weights)):
            _check_config(config, shards, weights.parent)
        return cls(path, weights, _in_natural_order(shards), shards.headers, config, shards.unlisted, shards.duplicates)

    @property
    def is_sharded(self) -> bool:
        """Whether it has an index, which says in which file each tensor is."""
        return is_index_name(self.weights.name)

    @property
    def folder(self) -> Path:
        """Directory that its files are in."""
        return self.weights.parent

    @property
    def metadata(self) -> Mapping[str, str]:
        """Free-form metadata of its first file; empty if it has no file."""
        return next(iter(self.headers.values())).metadata if self.headers else {}

    def file_format(self, name: str) -> str:
        """Return the format that the file of a tensor names in `__metadata__`, such as `flax`; empty if none."""
        return self.headers[self.tensors[name].file].metadata.get("format", "")

    @cached_property
    def _dtypes(self) -> dict[str, str]:
        return {name: tensor.dtype for name, tensor in self.tensors.items()}

    @property
    def tensors_as_stored(self) -> list[Tensor]:
        """Its tensors in the order of their files, and in each file in the order of their bytes.

        If every tensor of a file begins at a multiple of its entry size, it still does in a copy written in this order.
        """
        numbers = {file: number for number, file in enumerate(self.headers)}
        return sorted(self.tensors.values(), key=lambda tensor: (numbers[tensor.file], tensor.start, tensor.stop))

    @property
    def quantisation(self) -> str | None:
        """How it is quantised, with what to do about it; None if it is not, or if it is read through scales."""
        return quantisation_message(self.config, self._dtypes)

    def check_is_readable(self) -> None:
        """Refuse a quantised checkpoint, unless its weights can be read by multiplying stored numbers by scales.

        Raises:
            InputError: If it is quantised in a way that is not read (the message says what to do); if only its config
                says that it is quantised; if a scale is missing or invalid (the message names it).
        """
        if self.quantisation is not None:
            raise InputError(f"{self.path} is quantised, so its numbers are not its weights: {self.quantisation}")
        if quantisation_settings(self.config) and not self.scales:
            raise InputError(
                f"{self.folder / CONFIG_NAME} says that the weights are quantised, but no tensor is of 8-bit "
                f"floats; if the weights were dequantised, remove the quantization_config from this file"
            )
        for name, scale in self.scales.items():
            scale.read(self.tensors[name].shape[-1])  # refuses a scale that is not finite

    def check_zeros_can_be_counted(self) -> None:
        """Refuse a quantised checkpoint in whose stored numbers zeros cannot be set or counted.

        Raises:
            InputError: If it is such a checkpoint; the message says how it is quantised and what to do.
        """
        reason = uncounted_zeros_message(self.config, self._dtypes)
        if reason is not None:
            raise InputError(f"{self.path} is quantised, and zeros cannot be set or counted in it: {reason}")

    @cached_property
    def scales(self) -> Mapping[str, Scale]:
        """Scales by the names of the weights that they multiply; empty if no weights are read through scales.

        Raises:
            InputError: As `find_scales` raises it.
        """
        if self.quantisation is not None or not quantisation_settings(self.config):
            return {}
        return find_scales(self.config, self.tensors)

    def is_quantised_by_entry(self, name: str) -> bool:
        """Whether a tensor stores one quantised number for each entry of a weight."""
        return self.tensors[name].dtype in FLOAT8_DTYPES or is_scaled_int8(name, self._dtypes)

    def weight(self, name: str) -> Tensor:
        """Return a tensor with the values of a weight: the stored tensor, or one that multiplies it by its scale."""
        tensor, scale = self.tensors[name], self.scales.get(name)
        return tensor if scale is None else ScaledTensor.through(tensor, scale)

    @cached_property
    def ties(self) -> Mapping[str, str]:
        """Maps the name of each stored tensor that repeats an earlier one to the name of the earlier one.

        Equal tensors that are quantised entry by entry are not tied, since their scales may differ.
        """
        return stored_ties([tensor for name, tensor in self.tensors.items() if not self.is_quantised_by_entry(name)])

    @cached_property
    def absent_ties(self) -> Mapping[str, str]:
        """Maps each name that is not stored, but that the model may have for a stored tensor, to the tensor's name."""
        return absent_ties(self.tensors, self.config) | self._declared_ties

    @cached_property
    def _declared_ties(self) -> dict[str, str]:
        return declared_ties(self.tensors, [header.metadata for header in self.headers.values()])

    @cached_property
    def _certain_absent_ties(self) -> dict[str, str]:
        """Those of `absent_ties` that the config or the files declare."""
        return tied_by_config(self.absent_ties, self.tensors, self.config) | self._declared_ties

    def tied_to(self, name: str) -> tuple[str, ...]:
        """Return the other names, stored or not, of the parameter that a stored tensor holds."""
        first_name = self.ties.get(name, name)
        stored_names = [first_name, *(tie for tie, target in self.ties.items() if target == first_name)]
        absent_names = [name for name, target in self._certain_absent_ties.items() if target in stored_names]
        return tuple(other for other in [*stored_names, *absent_names] if other != name)

    def find(self, name: str) -> Tensor | None:
        """Return the tensor of this name, or the stored tensor that the name is tied to; None if there is neither."""
        return self.tensors.get(name) or self.tensors.get(self.absent_ties.get(name, ""))

    @property
    def notes(self) -> list[str]:
        """Notes for the user: what is unusual about it, without being an error."""
        texts = [
            f"{', '.join(path.name for path in paths)} repeat(s) {name!r}; this tensor is read from "
            f"{self.tensors[name].file.name}, as the index says"
            for name, paths in self.duplicates.items()
        ]
        return texts + [
            f"{tensor.file.name} contains {name!r}, which the index does not list; it is treated like a listed one, "
            f"since from_pretrained loads it if the model has it"
            for name, tensor in self.unlisted.items()
        ]


def _check_config(config: Mapping[str, Any], shards: Shards, folder: Path) -> None:
    """Refuse a config that contradicts the tensors.

    The config may contradict the tensors that the index does not list: their blocks may have been removed from index
    and config, but not from the files. Names of settings differ between models, so a contradiction may be only
    apparent: the config is accepted if the model that it names, as `transformers` builds it, has exactly the matrices
    of the checkpoint.
    """
    shapes = {tensor.name: tensor.shape for tensor in shards.tensors.values()}
    contradiction = find_contradiction(config, shapes, folder / CONFIG_NAME)
    if contradiction is None:
        return
    listed_shapes = {name: shape for name, shape in shapes.items() if name not in shards.unlisted}
    contradicts_listed = (
        not shards.unlisted or find_contradiction(config, listed_shapes, folder / CONFIG_NAME) is not None
    )
    if contradicts_listed and not has_matrices_of_config_model(folder, shapes):
        raise InputError(contradiction)


def _in_natural_order(shards: Shards) -> dict[str, Tensor]:
    return {name: shards.tensors[name] for name in sorted(shards.tensors, key=natural_key)}
