"""Which layers are masked: linear and convolution weights, by name or all but the first and the last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from masksmith.patterns import Pattern, PatternError, TilePattern
from masksmith_client._errors import InputError
from masksmith_client.submission.selection import Globs
from masksmith_client.submission.tensors import SAFETENSORS_DTYPES
from masksmith_wire.dtypes import FLOAT_DTYPES

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
        InputError: If a name meets nothing, a layer that is spelled out cannot be masked, or nothing is left.
    """
    found = _weights(model)
    wanted, unwanted = _listed(layers), _listed(exclude)
    for glob in (*wanted, *unwanted):
        if not any(_meets(name, [glob]) for name in found):
            raise InputError(f"no linear or convolution layer is called {glob!r}; there are {_some(found)}")
    chosen, skipped = [], {}
    for place, (name, modules) in enumerate(found.items()):
        weight = next(iter(modules.values())).get_parameter("weight")
        reason = _excluded(name, place, len(found), wanted, unwanted) or _misfit(weight, pattern)
        if reason is None:
            chosen.append(MaskedLayer(name, modules, weight, Masking(method, weight), _rank_above(pattern)))
        elif _is_named(name, wanted) and not _meets(name, unwanted):
            raise InputError(f"{name!r} cannot be masked: {reason}")
        elif not wanted or _meets(name, wanted):
            skipped[name] = reason
    if not chosen:
        raise InputError(_nothing_left(found, skipped, pattern))
    return chosen, skipped


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


def _excluded(name: str, place: int, count: int, wanted: Sequence[str], unwanted: Sequence[str]) -> str | None:
    if _meets(name, unwanted):
        return "excluded"
    if wanted:
        return None if _meets(name, wanted) else "not selected"
    if place in (0, count - 1):
        return f"the {'first' if place == 0 else 'last'} layer stays dense unless it is named"
    return None


def _misfit(weight: Tensor, pattern: Pattern) -> str | None:
    dtype = SAFETENSORS_DTYPES.get(str(weight.dtype).removeprefix("torch."))
    if dtype not in FLOAT_DTYPES:
        return f"dtype {weight.dtype} cannot be trained under a mask"
    try:
        pattern.grid(tuple(weight.shape))
    except PatternError as error:
        return str(error)
    return None


def _rank_above(pattern: Pattern) -> float:
    # Patterns without tiles are filled entry by entry, where it is enough to come first.
    return 1.0 + pattern.tile.rows * pattern.tile.cols if isinstance(pattern, TilePattern) else 2.0


def _nothing_left(found: dict[str, dict[str, torch.nn.Module]], skipped: dict[str, str], pattern: Pattern) -> str:
    if not found:
        return "the model has no linear or convolution layer"
    reasons = "; ".join(f"{name!r}: {reason}" for name, reason in list(skipped.items())[:3])
    return f"no layer is left to mask with {pattern}, of {len(found)}: {reasons}. Name some with layers="


def _some(found: dict[str, dict[str, torch.nn.Module]]) -> str:
    return ", ".join(list(found)[:5]) + ", ..." * (len(found) > 5) if found else "none at all"


def _listed(globs: Globs) -> list[str]:
    if globs is None:
        return []
    return [globs] if isinstance(globs, str) else list(globs)


def _spellings(name: str) -> tuple[str, str]:
    return name, name.removesuffix("weight").removesuffix(".")


def _meets(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(spelling, glob) for spelling in _spellings(name) for glob in globs)


def _is_named(name: str, globs: Sequence[str]) -> bool:
    return any(spelling in globs for spelling in _spellings(name))
