"""Recognises quantised checkpoints, whose stored numbers are not the weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from masksmith_client._errors import InputError

from .stored_values import ENTRY_DTYPES, nonzero
from .tensors import Tensor

_ADVICE = {
    "fp8": "load it by transformers with dequantize=True in its quantization config and save it as bfloat16",
    "mxfp4": "load it by transformers with Mxfp4Config(dequantize=True) and save it as bfloat16",
    "compressed-tensors": "load it by transformers with CompressedTensorsConfig(run_compressed=False) and save it",
    "bitsandbytes": "load it by transformers, call model.dequantize(), and save it",
}
_ANY = "prune the checkpoint that it was made from, or dequantise it and save it as bfloat16"

_PACKED = (
    (re.compile(r"(?:^|\.)q(?:weight|zeros)$"), "gptq or awq"),
    (re.compile(r"(?:^|\.)weight_(?:packed|bitmask)$"), "compressed-tensors"),
    (re.compile(r"\.weight\.(?:absmax|quant_map|quant_state\S*)$"), "bitsandbytes"),
    (re.compile(r"\w+_blocks$"), "mxfp4"),
    (re.compile(r"(?:^|\.)W_q$"), "hqq"),
    (re.compile(r"\.weight\._data$"), "quanto"),
    (re.compile(r"(?:^|\.)_?\w+_qdata$"), "torchao"),
    (re.compile(r"(?:^|\.)codebooks$"), "aqlm"),
)
"""Names of tensors that packed weights have: several weights are stored in one byte or word."""

_SCALED = ((re.compile(r"(?:^|\.)SCB$"), "bitsandbytes"), (re.compile(r"_scale_inv$"), "fp8"))

_SCALES = ("_scale", "_scale_inv", ".scale")

_READ_THROUGH = frozenset({"float-quantized", "naive-quantized"})
"""Formats of compressed-tensors whose weights are read through their scales, if they are floats."""

_BY_VALUE = frozenset({"fp8", "fbgemm_fp8", "compressed-tensors", "bitsandbytes"})
"""Methods that store an entry for each weight, which is zero where the weight is, unless there is a zero point."""


def described_quantisation(config: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return what a model's `config.json` says of its quantisation; empty if it says nothing."""
    described = (config or {}).get("quantization_config") or (config or {}).get("compression_config")
    return described if isinstance(described, Mapping) else {}


def quantisation(config: Mapping[str, Any] | None, dtypes: Mapping[str, str]) -> str | None:
    """Say how a checkpoint is quantised and what to do about it; None if it is not, or is read through its scales.

    Args:
        config: Its `config.json`.
        dtypes: Dtypes of all tensors by name.
    """
    described = described_quantisation(config)
    packed = _packed(dtypes)
    if described:
        method, kind = _method(described), _format(described)
        is_read_through = method == "fp8" or (method == "compressed-tensors" and kind in _READ_THROUGH)
        return None if is_read_through and packed is None else _named_by_config(method, kind)
    return packed or _scaled(dtypes)


def packed_reason(config: Mapping[str, Any] | None, dtypes: Mapping[str, str]) -> str | None:
    """Say why zeros cannot be counted in what a checkpoint stores, and what to do; None if they can.

    Quantised weights of one entry each are counted by value, for example int8 and 8-bit floats beside a scale.
    """
    packed = _packed(dtypes)
    described = described_quantisation(config)
    if packed is not None or not described:
        return packed
    method, kind = _method(described), _format(described)
    is_by_value = method in _BY_VALUE and _sparse_format(described) is None
    return None if is_by_value else _named_by_config(method, kind)


def has_int_scale(name: str, dtypes: Mapping[str, str]) -> bool:
    """Whether a tensor is an int8 tensor with a scale, and so a quantised weight."""
    beside = (name + "_scale", name + "_scales", name.removesuffix("weight") + "SCB")
    return dtypes[name] == "I8" and any(other in dtypes for other in beside)


def check_zero_point(name: str, tensors: Mapping[str, Tensor]) -> None:
    """Refuse a weight with a zero point, whose zeros are not stored as zeros.

    Raises:
        InputError: If there is a zero point that is not zero everywhere; the message names it.
    """
    stem = name.removesuffix("weight")
    places = (f"{name}_zero_point", f"{name}_zero_points", f"{stem}zero_point", f"{stem}zero_points", f"{stem}qzeros")
    for place in places:
        zero_point = tensors.get(place)
        if zero_point is None:
            continue
        if zero_point.dtype not in ENTRY_DTYPES or nonzero(zero_point.read(), zero_point.dtype).any():
            raise InputError(f"{name!r} has a zero point, {place!r}, so its zeros are not stored as zeros; {_ANY}")


def _method(described: Mapping[str, Any]) -> str:
    return str(described.get("quant_method") or "unknown method")


def _format(described: Mapping[str, Any]) -> str | None:
    """Return the format that compressed-tensors names."""
    kind = _sparse_format(described) or described.get("format")
    return None if kind is None else str(kind)


def _named_by_config(method: str, kind: str | None) -> str:
    text = f"its config names the quantisation {method!r}" + (f" in the format {kind!r}" if kind else "")
    return f"{text}; {_ADVICE.get(method, _ANY)}"


def _sparse_format(described: Mapping[str, Any]) -> str | None:
    sparsity = described.get("sparsity_config")
    kind = sparsity.get("format") if isinstance(sparsity, Mapping) else None
    return None if kind in (None, "dense") else str(kind)


def _packed(dtypes: Mapping[str, str]) -> str | None:
    return _shown_by(_PACKED, dtypes) or next((_shows(name, "mlx") for name in dtypes if _is_mlx(name, dtypes)), None)


def _is_mlx(name: str, dtypes: Mapping[str, str]) -> bool:
    """Whether a tensor is a weight of MLX, several of which are packed into an integer of 32 bits."""
    stem = name.removesuffix("weight")
    return stem != name and dtypes[name] in ("U32", "I32") and f"{stem}scales" in dtypes


def _scaled(dtypes: Mapping[str, str]) -> str | None:
    small = [name for name, dtype in dtypes.items() if dtype.startswith(("F8", "F4", "F6", "I8", "U8"))]
    scaled = next((name for name in small if any(name + suffix in dtypes for suffix in _SCALES)), None)
    if scaled is None:
        return _shown_by(_SCALED, dtypes)
    return _shown_by(_SCALED, dtypes) or _shows(scaled, "fp8" if dtypes[scaled].startswith("F") else "int8")


def _shown_by(marks: Sequence[tuple[re.Pattern[str], str]], dtypes: Mapping[str, str]) -> str | None:
    shown = ((name, method) for name in dtypes for form, method in marks if form.search(name))
    return next((_shows(name, method) for name, method in shown), None)


def _shows(name: str, method: str) -> str:
    advice = _ADVICE.get(method, _ANY)
    if method == "fp8":
        advice = f"add the config.json that describes its scales to the checkpoint, or {advice}"
    return f"{name!r} shows that it is quantised ({method}); {advice}"
