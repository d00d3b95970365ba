"""Roles of tensors, by the common names of embeddings, output heads, routers, norms, biases, scales and others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .low_rank_adapters import is_adapter
from .reparametrized import reparametrized_reason, without_parametrization

# Matches a name if its last component, a final `.weight` aside, is one of the alternatives put in for `{}`.
_LAST_COMPONENT = r"(?:^|\.)(?:{})(?:\.weight)?$"

OUTSIDE_BLOCKS = "outside the model's blocks"
ONE_INPUT = "a convolution with one input channel, or one per group: its sums run over its kernel alone"
PATCH_EMBEDDING = "an embedding of patches, outside the model's blocks"
PATCH_DIMENSIONS = 4
"""Least number of dimensions of the weight of a convolution over patches; tables that are looked up have fewer."""
PACKED = "packed by a quantiser, not a weight; dequantise the model first"
_PACKED = re.compile(
    _LAST_COMPONENT.format(
        r"qweight|qzeros|g_idx|weight_packed|weight_shape|\w+_blocks|weight_zero_point|W_q|\w*weight_qdata"
        r"|weight\._data"
    )
)
FUSED_EXPERTS = "several experts fused along one axis, which a layout cannot describe; split them into one tensor each"
_FUSED_EXPERTS = re.compile(r"(?:^|\.)experts\.(?:mlp\.)?(?:w[123]|v1)$")
_SCALE = re.compile(
    _LAST_COMPONENT.format(
        r"\w*_?scale_inv|\w*_scale(?:_\d)?|\w*_scales|scales?|weight_scale|input_scale|absmax|quant_map|quant_state\S*"
        r"|SCB|\w*zero_points?|layer_scale\w*|gamma|smooth\w*"
    )
)
_BIAS = re.compile(r"(?:^|[._])bias(?:es)?(?:_\w+)?$|(?:^|\.)(?:\w*_bias\w*|sinks|b_[qkvo])$")
_NORM = re.compile(r"(?:^|[._])(?:\w*norm\d*|layernorm_\w+|ln|ln_\w+|bn\d*)(?:\.weight)?$", re.IGNORECASE)
_FUSED_NORM = "layer_norm_weight"
"""The norm's weight in modules of TransformerEngine that are a norm and a linear layer, such as `layernorm_qkv`; a
matrix beside it is a weight of the linear layer."""
_EMBEDDING = re.compile(
    r"(?:^|\.)(?:\w*embed\w*|\w*embd\w*|wte|wpe|shared|relative_attention_bias|codebook\w*|\w+_table"
    r"|rel_pos_[hwtd])(?:\.|$)|(?:^|\.)(?:\w*_tokens?|\w*mask_emb)$",
    re.IGNORECASE,
)
_HEAD = re.compile(
    r"(?:^|\.)(?:\w*lm_head\w*|embed_out|qa_outputs|classifier|vocab_projector|lm_logits|score|heads?"
    r"|classification_head|proj_out|mtp_head|cls\.predictions\S*|output)(?:\.(?:decoder|out_proj|dense))?(?:\.weight)?$"
)
_ROUTER = re.compile(r"(?:^|\.)\w*router\w*(?:\.|$)|(?:^|\.)(?:shared_expert_gate|wg)(?:\.weight)?$")
_GATE = re.compile(r"(?:^|\.)gate(?:\.weight|\.wg\.weight)?$")
_STATE = re.compile(
    _LAST_COMPONENT.format(r"A_logs?|D|dt_bias|time_(?:mix|maa|decay|first|faaaa)\w*|r_k|lambda\w*|alpha|beta")
)
_BLOCK = re.compile(r"(?:^|\.)\d+\.(?:[^.]+\.[^.]+|(?!weight$|bias$)[^.]+$)")


@dataclass(frozen=True, slots=True)
class Role:
    """Why a tensor is not masked by default.

    Attributes:
        reason: The reason, for reports.
        cannot_be_masked: Whether it stays dense even if the caller gives its full name.
        selectable_by_glob: Whether a glob selects it; otherwise only its full name does, if it can be masked.
    """

    reason: str
    cannot_be_masked: bool = False
    selectable_by_glob: bool = False


class Roles:
    """Finds the roles of a checkpoint's tensors by their names, and some by their shapes.

    Some names can be classified only together with the checkpoint's other names.

    Args:
        names: The names of all tensors of the checkpoint.
        weights: The names of those that may be weights of layers; default all. Only they show whether there are blocks:
            norms and parameters of a numbered layer, as in `3.running_mean`, are no block.

    Attributes:
        has_blocks: Whether the name of a weight, low-rank adapters aside, has the number of a block.
    """

    def __init__(self, names: Sequence[str], weights: Sequence[str] | None = None) -> None:
        weights = names if weights is None else weights
        self.has_blocks = any(in_block(name) for name in weights if not is_adapter(name))
        self._names = frozenset(names)
        self._packed_parents = _parents_of(names, "W_q")
        self._norm_parents = _parents_of(names, _FUSED_NORM)
        self._expert_parents = {name.partition(".experts.")[0] for name in names if ".experts." in name}

    def role(self, name: str, shape: Sequence[int]) -> Role | None:
        """Return the role that keeps a tensor from being masked by default; None if it has no such role.

        An empty shape is one that is not known; the tensor then has no role that depends on its shape.
        """
        # `scale.weight` of two dimensions is the weight of a layer that is called `scale`: quantisers store scales and
        # packed weights as parameters of the layer, without `.weight`, and norms store vectors.
        is_layer_weight = name.endswith(".weight") and (not shape or sum(length > 1 for length in shape) >= 2)
        if _PACKED.search(name) and not is_layer_weight:
            return Role(PACKED, cannot_be_masked=True)
        reparametrized = reparametrized_reason(name, self._names)
        if reparametrized is not None:
            return Role(reparametrized, cannot_be_masked=True)
        if _FUSED_EXPERTS.search(name) and len(shape) == 2:
            return Role(FUSED_EXPERTS, cannot_be_masked=True)
        if name.endswith(".zero") and name.removesuffix(".zero") in self._packed_parents:
            return Role("a zero point", cannot_be_masked=True)
        if _SCALE.search(name) and not is_layer_weight:
            # The full name selects a vector or a `gamma`, which need not be the scale of a quantiser.
            return Role("a scale", cannot_be_masked=len(shape) != 1 and not name.endswith("gamma"))
        if is_adapter(name):
            return Role("a low-rank adapter")
        is_in_block = in_block(name)
        # In a checkpoint without blocks, a matrix's name that has no dot, such as `head`, was chosen by the caller.
        is_caller_name = not self.has_blocks and "." not in name and len(shape) == 2
        reason = None if is_caller_name else self._dense_reason(name, shape, is_layer_weight)
        if reason is not None:
            return Role(reason)
        if _is_router(name, self._expert_parents):
            return Role("a router, which chooses experts")
        if _HEAD.search(name) and not is_in_block and not is_caller_name:
            return Role("an output head")
        if len(shape) >= 3 and shape[1] == 1:
            return Role(ONE_INPUT)
        if self.has_blocks and not is_in_block:
            return Role(OUTSIDE_BLOCKS, selectable_by_glob=True)
        return None

    def _dense_reason(self, name: str, shape: Sequence[int], is_layer_weight: bool) -> str | None:
        """Return the reason why a tensor is dense by default by its own name, or None."""
        is_beside_norm = len(shape) == 2 and name.rpartition(".")[0] in self._norm_parents
        for pattern, reason in _DENSE:
            if pattern is _STATE and is_layer_weight:
                continue
            if pattern.search(_name_inside_block(name)) and not (is_beside_norm and pattern is _NORM):
                return PATCH_EMBEDDING if pattern is _EMBEDDING and len(shape) >= PATCH_DIMENSIONS else reason
        return None


_DENSE = (
    (_BIAS, "a bias"),
    (_EMBEDDING, "an embedding by its name, which is looked up, not multiplied"),
    (_NORM, "a norm"),
    (_STATE, "a state parameter, not a matrix that multiplies"),
)
"""Patterns of the names of tensors that are dense by default, with the reasons."""


def in_block(name: str) -> bool:
    """Whether a name has the number of a block.

    That is a number that is followed by two or more components, as in `layers.3.mlp.weight`, or by one component other
    than `weight` and `bias`, as in `layers.3.qkv`. The number of a parametrization does not count.
    """
    return _BLOCK.search(without_parametrization(name)) is not None


def _parents_of(names: Sequence[str], last_component: str) -> set[str]:
    """Return the names of the modules that have a parameter with this last component of its name."""
    return {parent for parent, _, last in (name.rpartition(".") for name in names) if last == last_component}


def _name_inside_block(name: str) -> str:
    """Return the part of a name after its block's number, since enclosing modules do not describe the tensor.

    A name without the number of a block is returned whole.
    """
    block = _BLOCK.search(name)
    return name if block is None else name[block.start() :].lstrip(".").partition(".")[2]


def _is_router(name: str, expert_parents: set[str]) -> bool:
    if _ROUTER.search(name):
        return True
    gate = _GATE.search(name)
    return gate is not None and name[: gate.start()] in expert_parents
