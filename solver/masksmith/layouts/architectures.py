"""Layouts of tensors, by their names, their shapes and the architecture of the model.

The rules come from the sources of `transformers` and of the models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .convolutions import (
    GROUPED_TRANSPOSED,
    TRANSPOSED_AXES,
    bias_name,
    following_mean_name,
    is_plain_or_transposed_by_kernel,
    is_plain_or_transposed_by_name,
    is_transposed_by_name,
    kinds_by_bias,
    may_be_convolution_weight,
    sibling_mean_name,
)
from .layout import AxisRole, Layout, Rule, default_axes

CONV1D_MODELS = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp"})
"""Models with layers of `transformers.Conv1D`: weights with the names of `_CONV1D` are `[in, out]`."""

EXPERTS_IN_OUT = frozenset(
    {
        "gpt_oss",
        "openai_privacy_filter",
        "llama4",
        "llama4_text",
        "aria",
        "aria_text",
        "qwen3_vl_moe",
        "qwen3_vl_moe_text",
    }
)
"""Models whose stacked experts are published as `[experts, in, out]`, the transpose of what `F.linear` takes.

Some versions of `transformers` save those of qwen3_vl_moe the other way round, so this table is used only where the
shapes do not decide.
"""

GATE_AND_UP_IN_HALVES = EXPERTS_IN_OUT - {"gpt_oss"}
"""Models of `EXPERTS_IN_OUT` whose fused gate and up are two halves of the outputs; in gpt_oss, the two alternate."""

FUSED_AND_DOWN = (("gate_up", "down"), ("input_linear", "output_linear"))
"""Pairs of strings in the names of experts' matrices: one for fused gate and up, and one for down."""

_CONV1D = re.compile(r"(?:^|\.)(?:c_attn|c_fc|c_proj|q_attn)\.weight$")
_EXPERTS = re.compile(r"(?:^|[._])experts?(?:[._]|$)|(?:^|\.)(?:input|output)_linear\.weight$")
_MIXTURE = re.compile(r"(?:^|[._])moe(?:[._]|$)")
"""Names in a mixture of experts; a tensor of three or more dimensions with such a name is not always a convolution."""
_LOW_RANK_FACTOR = re.compile(r"(?:^|\.)(?:att\.[wavg][12]|time_\w+_w[12])$")
"""Parameters of RWKV that belong to no layer, and are used as `x @ w`."""

_LAYER_WEIGHT = re.compile(r"(?:^|[._])(?:weight(?:_\w+)?|parametrizations\.weight\.original[01]?)$")
"""Weights of layers, by the last part of the name: also `in_proj_weight` of attention, `weight_ih_l0` of an LSTM."""

_LAYER_NAME = re.compile(r"(?:^|\.)(?:gate_up_proj|gate_and_up_proj|down_proj|up_proj|gate_proj|qkv_proj)$")
"""Ends of the names of weights that are named as their layer, without `.weight`."""


@dataclass(frozen=True, slots=True)
class Unclear:
    """The result for a tensor that gets no layout.

    Attributes:
        reason: Why the tensor gets none; it says so if a layout given by the caller can help.
    """

    reason: str


class Architecture:
    """Finds layouts by names, shapes and, if there is one, the model's config.

    Args:
        shapes: Shapes of all tensors of the checkpoint, by name.
        config: Its `config.json`; None if there is none.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]], config: Mapping[str, Any] | None = None) -> None:
        self._shapes = shapes
        self._config = dict(config or {})
        self.model_types = _model_types(self._config)
        self._rule_for_conv1d = self._find_rule_for_conv1d()
        self._has_layer_weights = any(_LAYER_WEIGHT.search(name) for name in self._shapes)

    def layout(self, name: str, shape: Sequence[int], *, may_be_convolution: bool = True) -> Layout | Unclear:
        """Return the layout of a tensor of two or more dimensions, or why it is unclear.

        Args:
            name: Name of the tensor.
            shape: Its shape.
            may_be_convolution: Whether it may belong to a convolution; False if its module is known not to be one.
        """
        if _LOW_RANK_FACTOR.search(name):
            return Unclear("a low-rank factor, which may be used as 'x @ w'; give its layout, 'out in' or 'in out'")
        if len(shape) == 2:
            rule = self._rule_for_conv1d if _CONV1D.search(name) else None
            layout = Layout(("in", "out"), rule=rule) if rule else Layout(default_axes(shape), rule="shape")
            return self._with_parts_by_name(name, shape, layout)
        if len(shape) == 3 and _EXPERTS.search(name):
            return self._experts(name, shape)
        return self._convolution(name, shape) if may_be_convolution else Unclear(_stacked_shape_reason(shape))

    def is_outside_layers(self, name: str, shape: Sequence[int]) -> bool:
        """Whether a matrix belongs to no layer, by its name, which is not that of a layer's weight.

        False if no tensor of the checkpoint has the name of a layer's weight, since names then decide nothing; also for
        a name without dots, which the caller has chosen, and for a tensor that is no matrix.
        """
        return len(shape) == 2 and "." in name and self._has_layer_weights and not is_named_as_layer(name)

    def _convolution(self, name: str, shape: Sequence[int]) -> Layout | Unclear:
        if _EXPERTS.search(name) or _MIXTURE.search(name) or not may_be_convolution_weight(name, shape):
            return Unclear(_ambiguous_shape_reason(shape))
        kinds = kinds_by_bias(shape, self._shape_of_outputs(name))
        if kinds == {"grouped transposed"}:
            return Unclear(GROUPED_TRANSPOSED)
        if kinds == {"transposed"}:
            return Layout(TRANSPOSED_AXES[: len(shape)], rule="shape")
        if "transposed" in kinds:
            return _convolution_by_name(name, shape, is_plain_by_norm=self._is_plain_by_norm(name, shape))
        may_be_transposed = is_transposed_by_name(name) or is_plain_or_transposed_by_name(name, shape)
        if may_be_transposed and "grouped transposed" in kinds:
            return Unclear(_grouped_or_plain_reason(shape))
        return Layout(default_axes(shape), rule="shape")

    def _shape_of_outputs(self, name: str) -> Sequence[int]:
        """Return the shape of a layer's bias, else of the means of a batch norm that follows, else `()`."""
        mean_name = following_mean_name(name)
        of_mean = () if mean_name is None else self._shapes.get(mean_name, ())
        return self._shapes.get(bias_name(name), of_mean)

    def _is_plain_by_norm(self, name: str, shape: Sequence[int]) -> bool:
        """Whether a batch norm beside a convolution has one entry for each place of its first axis.

        A norm with one entry for each place of the second axis shows nothing: it may come before a plain convolution
        or after a transposed one.
        """
        mean_shape = tuple(self._shapes.get(sibling_mean_name(name) or "", ()))
        return shape[0] != shape[1] and mean_shape == (shape[0],)

    def _experts(self, name: str, shape: Sequence[int]) -> Layout | Unclear:
        rule: Rule = "name"
        axes = self._axes_by_sibling(name, shape)
        if axes is None and self.model_types & EXPERTS_IN_OUT:
            axes, rule = ("stack", "in", "out"), "architecture"
        if axes is None:
            return Unclear(
                f"the experts' shape {list(shape)} does not show which axis is the input; give the model's directory "
                f"with its config.json, or a layout, 'stack out in' or 'stack in out'"
            )
        return self.with_parts(name, shape, Layout(axes, rule=rule))

    def _axes_by_sibling(self, name: str, shape: Sequence[int]) -> tuple[AxisRole, ...] | None:
        """Find the axes by the shapes of fused gate and up and of down.

        If the axes are `[stack, out, in]`, the shape of gate and up is `[.., 2 * f, h]`, and that of down `[.., h, f]`,
        with h features of the model and f features inside an expert; if the axes are `[stack, in, out]`, both matrices
        are transposed. None if one of the two tensors is missing, or if their shapes fit neither.
        """
        both_ways = [pair for fused, down in FUSED_AND_DOWN for pair in ((fused, down), (down, fused))]
        # The last such string in this tensor's name, and the string that replaces it in the name of the other tensor.
        # Parts of the model that contain both, such as `down_blocks`, have the same name in both.
        pairs = [pair for pair in both_ways if pair[0] in name]
        replacement = max(pairs, key=lambda pair: name.rfind(pair[0]), default=None)
        if replacement is None:
            return None
        before, _, after = name.rpartition(replacement[0])
        sibling = self._shapes.get(f"{before}{replacement[1]}{after}", ())
        if len(sibling) != 3:
            return None
        is_fused = replacement in FUSED_AND_DOWN  # else the pair is reversed, and this tensor is `down`
        fused, down = (shape, sibling) if is_fused else (sibling, shape)
        if fused[1] == 2 * down[2] and fused[2] == down[1]:
            return "stack", "out", "in"
        if fused[2] == 2 * down[1] and fused[1] == down[2]:
            return "stack", "in", "out"
        return None

    def _find_rule_for_conv1d(self) -> Rule | None:
        """Return the rule by which weights with names of `_CONV1D` are `[in, out]`; None if they are `[out, in]`.

        Without a config, the shapes of `c_attn` and `c_fc` decide: these layers have more outputs than inputs.
        """
        if self.model_types:
            return "architecture" if self.model_types & CONV1D_MODELS else None
        shapes = [shape for name, shape in self._shapes.items() if _shows_orientation(name, shape)]
        return "name" if shapes and all(first < second for first, second in shapes) else None

    def with_parts(self, name: str, shape: Sequence[int], layout: Layout) -> Layout:
        """Return a layout with the fused parts of a layer of this name, if they are known and it has none yet.

        A forward pass shows the axes of a weight, but not always the parts that its outputs are split into.
        """
        if layout.out_parts or "kernel" in layout.axes or layout.axes.count("stack") != len(shape) - 2:
            return layout
        # All models with `[stack, out, in]` are assumed to have gate and up as two halves, so no table lists them.
        are_halves = layout.axes[-1] == "in" or self.model_types & GATE_AND_UP_IN_HALVES
        return self._with_parts_by_name(name, shape, layout) if len(shape) == 2 or are_halves else layout

    def _with_parts_by_name(self, name: str, shape: Sequence[int], layout: Layout) -> Layout:
        rows, inputs = shape[layout.axes.index("out")], shape[layout.axes.index("in")]
        parts = self._parts(name.removesuffix(".weight").rsplit(".", 1)[-1], rows, inputs)
        return Layout(layout.axes, parts, layout.rule) if sum(parts) == rows and parts else layout

    def _parts(self, module: str, rows: int, inputs: int) -> tuple[int, ...]:
        """Return the number of rows of each fused part of a layer of this name; empty if no parts are known."""
        if module in ("gate_up_proj", "gate_and_up_proj", "input_linear") and rows % 2 == 0:
            return (rows // 2,) * 2
        if module == "c_attn" and self._rule_for_conv1d and rows == 2 * inputs:
            return (inputs,) * 2  # key and value of cross attention, whose query is `q_attn`
        is_attention = module in ("in_proj_weight", "qkv", "Wqkv") or (module == "c_attn" and self._rule_for_conv1d)
        # With fewer key heads than query heads, the three parts differ in size; then rows < 3 * inputs.
        if is_attention and rows == 3 * inputs:
            return (inputs,) * 3
        if module == "qkv_proj":
            return self._attention_parts()
        return ()

    def _attention_parts(self) -> tuple[int, ...]:
        """Return the numbers of rows of query, key and value in `qkv_proj`; empty if the config does not have them."""
        heads = self._config.get("num_attention_heads")
        hidden = self._config.get("hidden_size")
        if not isinstance(heads, int) or not isinstance(hidden, int) or heads < 1:
            return ()
        head_size = self._config.get("head_dim") or hidden // heads
        kv_heads = self._config.get("num_key_value_heads") or heads
        if not isinstance(head_size, int) or not isinstance(kv_heads, int):
            return ()
        return heads * head_size, kv_heads * head_size, kv_heads * head_size


def is_named_as_layer(name: str) -> bool:
    """Whether a matrix has the name of a layer's weight, which is `[out, in]` unless another rule says otherwise."""
    return _LAYER_WEIGHT.search(name) is not None or _LAYER_NAME.search(name) is not None


def _convolution_by_name(name: str, shape: Sequence[int], *, is_plain_by_norm: bool) -> Layout | Unclear:
    """Return the layout of a convolution whose bias does not show whether it is plain or transposed.

    Args:
        name: Name of its weight.
        shape: Shape of its weight.
        is_plain_by_norm: Whether a batch norm beside it suggests that it is plain, if its name does not decide.
    """
    if is_transposed_by_name(name):
        return Layout(TRANSPOSED_AXES[: len(shape)], rule="name")
    is_by_name = is_plain_or_transposed_by_name(name, shape)
    if is_by_name or (is_plain_or_transposed_by_kernel(name, shape) and not is_plain_by_norm):
        plain_axes, transposed_axes = " ".join(default_axes(shape)), " ".join(TRANSPOSED_AXES[: len(shape)])
        source = "name" if is_by_name else "even kernel"
        return Unclear(
            f"the {source} may mean a convolution or a transposed one; say which with a layout: {plain_axes!r} or "
            f"{transposed_axes!r}"
        )
    return Layout(default_axes(shape), rule="shape")


def _grouped_or_plain_reason(shape: Sequence[int]) -> str:
    return (
        f"the name may mean a transposed convolution, and the length of the bias fits a plain one, or a transposed one "
        f"of several groups, which cannot be masked; if it is plain, give its layout: {' '.join(default_axes(shape))!r}"
    )


def _ambiguous_shape_reason(shape: Sequence[int]) -> str:
    extra_dimensions = len(shape) - 2
    stack_axes = " ".join((*["stack"] * extra_dimensions, "out", "in"))
    convolution_axes = " ".join(("out", "in", *["kernel"] * extra_dimensions))
    return (
        f"the shape {list(shape)} may be a convolution or stacked matrices; say which with a layout, such as "
        f"{stack_axes!r} or {convolution_axes!r}"
    )


def _stacked_shape_reason(shape: Sequence[int]) -> str:
    stack = ["stack"] * (len(shape) - 2)
    out_in, in_out = " ".join((*stack, "out", "in")), " ".join((*stack, "in", "out"))
    return (
        f"the shape {list(shape)} may be stacked matrices, and does not show which axis is the input; say it with a "
        f"layout, such as {out_in!r} or {in_out!r}"
    )


def _shows_orientation(name: str, shape: Sequence[int]) -> bool:
    """Whether a shape shows which axis is `in`: it is not square, and its layer has more outputs than inputs."""
    return len(shape) == 2 and re.search(r"(?:^|\.)(?:c_attn|c_fc)\.weight$", name) is not None and shape[0] != shape[1]


def _model_types(config: Mapping[str, Any]) -> frozenset[str]:
    nested = [value for value in config.values() if isinstance(value, Mapping)]
    types = [each.get("model_type") for each in (config, *nested)]
    return frozenset(value for value in types if isinstance(value, str) and value)
