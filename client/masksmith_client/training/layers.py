"""Which layers are masked: linear and convolution weights, by name or all but the first and the last."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from masksmith.layouts import FLOAT_DTYPES, Candidate, SelectionError, select
from masksmith.patterns import Pattern, TilePattern
from masksmith.patterns.matching import Globs
from masksmith_client._errors import InputError
from masksmith_client.submission.tensors import SAFETENSORS_DTYPES

from .masking import Masking
from .methods.method import Method

KINDS = (torch.nn.Linear, torch.nn.modules.conv._ConvNd)


@dataclass(eq=False)
class MaskedLayer:
    """A weight and its mask.

    Attributes:
        name: The weight's name in the model, such as `encoder.0.weight`.
        modules: The modules that it belongs to, by path; more than one where it is shared.
        weight: The dense weight, or the masked one where masks are applied in place.
        masking: Its mask.
        rank_above: More than the scores of a tile's entries add up to, each at most 1.
    """

    name: str
    modules: dict[str, torch.nn.Module]
    weight: torch.nn.Parameter
    masking: Masking
    rank_above: float = 2.0
    _hook: torch.utils.hooks.RemovableHandle | None = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight, and of the mask."""
        return tuple(self.masking.mask.shape)

    def attach(self, *, in_place: bool) -> None:
        """Put the mask between the model and its weight."""
        if in_place:
            self._hook = self.weight.register_hook(self._cut)  # type: ignore[no-untyped-call]
        else:
            for module in self.modules.values():
                parametrize.register_parametrization(module, "weight", self.masking)

    def detach(self) -> None:
        """Leave the masked weight behind, and nothing else."""
        if self._hook is not None:
            self._hook.remove()
            return
        for module in self.modules.values():
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)

    def check(self, model: torch.nn.Module) -> None:
        """Refuse a layer that is no longer what it was.

        Raises:
            InputError: If it was replaced, or its weight changed shape.
        """
        if tuple(self.weight.shape) != self.shape:
            raise InputError(f"{self.name!r} changed shape from {list(self.shape)} to {list(self.weight.shape)}")
        for path, module in self.modules.items():
            try:
                found = model.get_submodule(path)
            except AttributeError:
                found = None
            if found is not module:
                raise InputError(f"layer {path!r} is not the one that was masked: make a new Sparsifier")

    @torch.no_grad()
    def cut(self) -> None:
        """Write zeros where the mask drops the weight."""
        self._follow()
        if not self.masking.dense:
            self.weight.mul_(self.masking.mask)

    def _follow(self) -> None:
        # As a parametrization the mask moves with the model; in place it is no part of it.
        if self.masking.mask.device != self.weight.device:
            self.masking.to(self.weight.device)

    def _cut(self, gradient: Tensor) -> Tensor:
        self._follow()
        self.masking.see(gradient)
        masking = self.masking
        return gradient if masking.dense else masking.method.gradient(gradient, self.weight, masking.mask)


def choose(
    model: torch.nn.Module, pattern: Pattern, method: Method, layers: Globs, exclude: Globs
) -> tuple[list[MaskedLayer], dict[str, str]]:
    """Choose the layers to mask.

    Args:
        model: The model.
        pattern: What their shapes must suit.
        method: What their maskings follow.
        layers: Names or globs of layers or weights; all but the first and the last unless given.
        exclude: Names or globs to leave out.

    Returns:
        The layers, not yet attached; and the weights left dense, with the reason.

    Raises:
        InputError: If a name or glob matches nothing, a layer that is spelled out cannot be masked, or nothing is left.
    """
    found = _weights(model)
    candidates = [_candidate(name, modules, place, len(found)) for place, (name, modules) in enumerate(found.items())]
    try:
        selection = select(candidates, pattern, layers, exclude, noun="linear or convolution layer")
    except SelectionError as error:
        if error.kind != "nothing_left" or not found:
            raise InputError(str(error)) from None
        raise InputError(f"no layer is left to mask with {pattern}: {error}. Name some with layers=") from None
    return [_masked_layer(name, found[name], pattern, method) for name in selection.chosen], selection.skipped


def _candidate(name: str, modules: dict[str, torch.nn.Module], place: int, count: int) -> Candidate:
    weight = next(iter(modules.values())).get_parameter("weight")
    dtype = SAFETENSORS_DTYPES.get(str(weight.dtype).removeprefix("torch."), str(weight.dtype))
    return Candidate(
        name,
        tuple(weight.shape),
        dtype,
        aliases=tuple(spelling for path in modules if path for spelling in (path, f"{path}.weight")),
        dense_by_default=_dense_by_default(place, count),
        unsupported_reason=None if dtype in FLOAT_DTYPES else f"dtype {weight.dtype} cannot be trained under a mask",
    )


def _dense_by_default(place: int, count: int) -> str | None:
    if place not in (0, count - 1):
        return None
    return f"the {'first' if place == 0 else 'last'} layer stays dense unless it is named"


def _masked_layer(name: str, modules: dict[str, torch.nn.Module], pattern: Pattern, method: Method) -> MaskedLayer:
    weight = next(iter(modules.values())).get_parameter("weight")
    return MaskedLayer(name, modules, weight, Masking(method, weight), _rank_above(pattern))


def _weights(model: torch.nn.Module) -> dict[str, dict[str, torch.nn.Module]]:
    """Give the modules of every linear or convolution weight; a shared weight has its first name."""
    names: dict[int, str] = {}
    found: dict[str, dict[str, torch.nn.Module]] = {}
    for path, module in model.named_modules():
        if not isinstance(module, KINDS):
            continue
        if parametrize.is_parametrized(module, "weight"):
            raise InputError(f"the weight of {path!r} is parametrized already: bake or remove that first")
        name = names.setdefault(id(module.weight), f"{path}.weight" if path else "weight")
        found.setdefault(name, {})[path] = module
    return found


def _rank_above(pattern: Pattern) -> float:
    # Patterns without tiles are filled entry by entry, where it is enough to come first.
    return 1.0 + pattern.tile.rows * pattern.tile.cols if isinstance(pattern, TilePattern) else 2.0
