"""A model with masked layers: reads its masks, and masks its weights and state dicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from masksmith_client._errors import InputError

from .adapters import merge, refuse_merged
from .copies import check_has_masked_layer, mask_state_dict, plain_state, removed_by_masks
from .masked_layer import MaskedLayer
from .masked_parameter import is_masked
from .sharding import reshard


class MaskedModel:
    """The masked layers of a model, until they are baked: the part of `Sparsifier` that does not depend on refreshes.

    Args:
        model: The model.
        layers: Its masked layers.
        in_place: Whether zeros are written into the weights.
    """

    def __init__(self, model: torch.nn.Module, layers: list[MaskedLayer], *, in_place: bool) -> None:
        self._model, self._layers, self._in_place = model, layers, in_place
        self._baked = False

    @property
    def masks(self) -> dict[str, Tensor]:
        """The mask of each layer, by the name of its weight; True = kept.

        Masks of sharded weights are gathered, so all ranks must read it.
        """
        self._restore_shards()
        return {layer.name: layer.whole_kept().clone() for layer in self._layers}

    @torch.no_grad()
    def plain_state_dict(self) -> dict[str, Tensor]:
        """Return the model's state dict as `bake` would leave it: masked weights under the plain model's names.

        The model does not change. Sharded weights are gathered, so all ranks must call it.

        Raises:
            InputError: If a masked layer was replaced or cannot be masked any more, values were written in place into a
                masked weight, or an adapter is merged into a masked layer.
        """
        return plain_state(self._model, ((layer, layer.masked_weight()) for layer in self._check_and_adopt_layers()))

    def mask_state_dict(self, state: dict[str, Any], model: torch.nn.Module) -> None:
        """Mask the weights in a state dict, in place, and remove the parameters of the method from it.

        Args:
            state: The state dict of `model`, or of an average of its weights.
            model: The model, or a module that contains it.

        Raises:
            InputError: If `model` contains no masked layer, if the state dict lacks the weight of a layer, or for a
                reason of `plain_state_dict`.
        """
        mask_state_dict(state, model, self._check_and_adopt_layers())

    def removed_by_masks(self, state: Mapping[str, Tensor], model: torch.nn.Module) -> dict[str, dict[str, Tensor]]:
        """Return the values that `mask_state_dict` removes with the same arguments, so that they can be restored.

        The keys are the names of the weights in the state dict; see `copies.removed_by_masks` for the values of each.

        Raises:
            InputError: If the state dict lacks the weight of a layer, or for a reason of `plain_state_dict`.
        """
        return removed_by_masks(state, model, self._check_and_adopt_layers())

    def check_model(self, model: torch.nn.Module) -> None:
        """Check that a model that a trainer trains and saves has masked layers of this sparsifier, and of no other.

        Raises:
            InputError: If it contains no masked layer, or one of another sparsifier; or for a reason of
                `plain_state_dict`.
        """
        check_has_masked_layer(model, self._check_and_adopt_layers())
        own = {(id(module), layer.parameter) for layer in self._layers for module in layer.modules.values()}
        for path, module in model.named_modules():
            for name in module._parameters:
                if is_masked(module, name) and (id(module), name) not in own:
                    raise InputError(
                        f"'{path}.{name}' has the mask of another Sparsifier, and a trainer's checkpoints support only "
                        "one Sparsifier: bake the masks of the other one, or mask all layers with one Sparsifier"
                    )

    def merge_adapters(self) -> dict[str, float]:
        """Merge low-rank adapters (LoRA) of masked layers into the weights, within the pattern.

        The masked weight becomes `m * (W + s B A)`, with the mask `m`, the dense weight `W`, and the adapter's scaling
        `s` and factors `B` and `A`. Then `B` is set to zero, so that the adapter adds nothing.

        Returns:
            For each weight with an adapter, the share of the adapter's squared norm in pruned entries, which is lost.

        Raises:
            InputError: If no masked layer has an adapter, an adapter is of another kind, the masks are baked, or for a
                reason of `plain_state_dict`, such as an adapter that is merged already.
        """
        self._check_not_baked()
        self._check_and_adopt_layers()
        lost_shares = merge(self._model, self._layers)
        self._zero_pruned()
        return lost_shares

    @property
    def is_baked(self) -> bool:
        """Whether the masks are baked into the model."""
        return self._baked

    def _check_not_baked(self) -> None:
        if self._baked:
            raise InputError("the masks are baked into the weights: create a new Sparsifier to continue")

    def _check_and_adopt_layers(self) -> list[MaskedLayer]:
        """Check the masked layers, adopt replaced weights, and return the layers: none once the masks are baked.

        Raises:
            InputError: For the reasons of `plain_state_dict`.
        """
        self._restore_shards()
        layers = [] if self._baked else self._layers
        for layer in layers:
            layer.check_and_adopt(self._model)
        refuse_merged(self._model, layers)
        return layers

    def _restore_shards(self) -> None:
        """Give layers back the sharded weights that FSDP2 has replaced for a while; see `sharding.reshard`.

        Raises:
            InputError: If a weight that was sharded is still whole afterwards, unless the masks are baked.
        """
        reshard(self._model)
        for layer in () if self._baked else self._layers:
            layer.check_sharded()

    def _zero_pruned(self) -> None:
        if self._in_place:
            for layer in self._layers:
                layer.zero_pruned()
