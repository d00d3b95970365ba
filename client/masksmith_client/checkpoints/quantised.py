"""Recognises quantised checkpoints, whose stored numbers are not the weights; refuses zero points other than 0."""

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
"""What the user can do, by the method of the quantisation; `_GENERAL_ADVICE` is for all other methods."""
_GENERAL_ADVICE = "prune the checkpoint that it was made from, or dequantise it and save it as bfloat16"

_PACKED_NAMES = (
    (re.compile(r"(?:^|\.)q(?:weight|zeros)$"), "gptq or awq"),
    (re.compile(r"(?:^|\.)weight_(?:packed|bitmask)$"), "compressed-tensors"),
    (re.compile(r"\.weight\.(?:absmax|quant_map|quant_state\S*)$"), "bitsandbytes"),
    (re.compile(r"\w+_blocks$"), "mxfp4"),
    (re.compile(r"(?:^|\.)W_q$"), "hqq"),
    (re.compile(r"\.weight\._data$"), "quanto"),
    (re.compile(r"(?:^|\.)_?\w+_qdata$"), "torchao"),
    (re.compile(r"(?:^|\.)codebooks$"), "aqlm"),
)
"""Patterns of names of tensors that show packed weights, each with the method that uses such names.

Entries of packed weights share a byte, a word or a code, or zeros are left out. With quanto and torchao the entries may
also be stored one by one; they count as packed, since the names are the same in both cases.
"""

_SCALE_NAMES = ((re.compile(r"(?:^|\.)SCB$"), "bitsandbytes"), (re.compile(r"_scale_inv$"), "fp8"))
"""Patterns of names of tensors that are scales of weights, each with the method that uses such names."""

_SCALE_SUFFIXES = ("_scale", ".scale")
"""Suffixes of all other scales: the name of such a scale is its weight's name with one of these suffixes added."""

_SCALED_METHODS = {"F8": "fp8", "F6": "fp6", "F4": "fp4", "I8": "int8", "U8": "int8"}
"""Methods that store weights of at most 8 bits with a scale, by the first two characters of the dtype's name."""

_FORMATS_READ_THROUGH_SCALES = frozenset({"float-quantized", "naive-quantized"})
"""Formats of compressed-tensors in which weights of 8-bit floats are read through their scales."""

_ENTRYWISE_METHODS = frozenset({"fp8", "fbgemm_fp8", "compressed-tensors", "bitsandbytes"})
"""Methods that store one number for each entry of a weight, unless names show packed weights.

Zero is stored as zero, unless there is a zero point.
"""


def quantisation_settings(config: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the settings of the quantisation in a model's `config.json`; empty if there are none."""
    settings = (config or {}).get("quantization_config") or (config or {}).get("compression_config")
    return settings if isinstance(settings, Mapping) else {}


def quantisation_message(config: Mapping[str, Any] | None, dtypes: Mapping[str, str]) -> str | None:
    """Say how a checkpoint is quantised and what to do about it; None if it is not, or if it is read through scales.

    If the checkpoint is read through scales, `Checkpoint.check_is_readable` checks its weights and scales.

    Args:
        config: The checkpoint's `config.json`; None if it has none.
        dtypes: Dtypes of all tensors by name.
    """
    settings = quantisation_settings(config)
    packed_message = _packed_message(dtypes)
    if not settings:
        scaled_message = _scaled_message(dtypes)
        nested_message = _nested_message(config) if scaled_message else None
        return packed_message or nested_message or scaled_message
    method, format_name = _method(settings), _format_name(settings)
    is_readable_format = method == "compressed-tensors" and format_name in _FORMATS_READ_THROUGH_SCALES
    if packed_message is None and (method == "fp8" or is_readable_format):
        return None
    return _config_message(method, format_name)


def uncounted_zeros_message(config: Mapping[str, Any] | None, dtypes: Mapping[str, str]) -> str | None:
    """Say why the zeros of a checkpoint's weights cannot be counted in its files, and what to do; None if they can.

    Zeros can be counted in weights that are quantised entry by entry, for example as int8 or 8-bit floats with a scale.
    """
    packed_message = _packed_message(dtypes)
    settings = quantisation_settings(config)
    if packed_message is not None or not settings:
        return packed_message
    method, format_name = _method(settings), _format_name(settings)
    is_by_entry = method in _ENTRYWISE_METHODS and _sparse_format(settings) is None
    return None if is_by_entry else _config_message(method, format_name)


def is_scaled_int8(name: str, dtypes: Mapping[str, str]) -> bool:
    """Whether a tensor is an int8 tensor with a scale, and therefore a quantised weight."""
    scale_names = (name + "_scale", name + "_scales", name.removesuffix("weight") + "SCB")
    return dtypes[name] == "I8" and any(scale_name in dtypes for scale_name in scale_names)


def check_zero_point(name: str, tensors: Mapping[str, Tensor]) -> None:
    """Refuse a weight with a zero point that is not zero everywhere: the weight's zeros are not stored as zeros.

    Raises:
        InputError: If there is such a zero point; if a zero point has a dtype that `nonzero` does not read; or if one
            cannot be read.
    """
    stem = name.removesuffix("weight")
    names = (f"{name}_zero_point", f"{name}_zero_points", f"{stem}zero_point", f"{stem}zero_points", f"{stem}qzeros")
    for zero_point_name in names:
        zero_point = tensors.get(zero_point_name)
        if zero_point is None:
            continue
        if zero_point.dtype not in ENTRY_DTYPES or nonzero(zero_point.read(), zero_point.dtype).any():
            raise InputError(
                f"{name!r} has a zero point, {zero_point_name!r}, so its zeros are not stored as zeros; "
                f"{_GENERAL_ADVICE}"
            )


def _method(settings: Mapping[str, Any]) -> str:
    return str(settings.get("quant_method") or "unknown method")


def _format_name(settings: Mapping[str, Any]) -> str | None:
    """Return the format that leaves out zeros, if the settings name one, else their `format`; None without either."""
    format_name = _sparse_format(settings) or settings.get("format")
    return None if format_name is None else str(format_name)


def _config_message(method: str, format_name: str | None) -> str:
    text = f"its config names the quantisation {method!r}" + (f" in the format {format_name!r}" if format_name else "")
    return f"{text}; {_ADVICE.get(method, _GENERAL_ADVICE)}"


def _nested_message(config: Mapping[str, Any] | None) -> str | None:
    """Say which part of a config, below its top level, has the settings of the quantisation; None if no part has them.

    A loader of the whole model reads only settings at the top level, so it is not known how it would read the scales.
    """
    for name, part in (config or {}).items():
        if isinstance(part, Mapping) and quantisation_settings(part):
            method = _method(quantisation_settings(part))
            return (
                f"its config names the quantisation {method!r} inside {name!r}, and settings are read only at the top "
                f"level; move them there, or {_ADVICE.get(method, _GENERAL_ADVICE)}"
            )
    return None


def _sparse_format(settings: Mapping[str, Any]) -> str | None:
    """Return the format, named by the settings of compressed-tensors, that leaves out zeros; None if there is none."""
    sparsity = settings.get("sparsity_config")
    format_name = sparsity.get("format") if isinstance(sparsity, Mapping) else None
    return None if format_name in (None, "dense") else str(format_name)


def _packed_message(dtypes: Mapping[str, str]) -> str | None:
    """Return a message that names a tensor of packed weights; None if there is none."""
    message = _first_name_message(_PACKED_NAMES, dtypes)
    mlx_messages = (_name_message(name, "mlx") for name in dtypes if _is_packed_mlx_weight(name, dtypes))
    vptq_messages = (_name_message(name, "vptq") for name in dtypes if _is_vptq_codebook(name, dtypes))
    return message or next(mlx_messages, None) or next(vptq_messages, None)


def _is_vptq_codebook(name: str, dtypes: Mapping[str, str]) -> bool:
    """Whether a tensor is the codebook of a layer of VPTQ, whose weights are stored as indices into the codebook."""
    layer, separator, _ = name.rpartition("centroids.weight")
    return bool(separator) and f"{layer}indices" in dtypes


def _is_packed_mlx_weight(name: str, dtypes: Mapping[str, str]) -> bool:
    """Whether a tensor is a weight of MLX, whose entries are packed into integers of 32 bits."""
    stem = name.removesuffix("weight")
    return stem != name and dtypes[name] in ("U32", "I32") and f"{stem}scales" in dtypes


def _scaled_message(dtypes: Mapping[str, str]) -> str | None:
    """Return a message that names a tensor with a scale, or a scale; None if there is none."""
    message = _first_name_message(_SCALE_NAMES, dtypes)
    if message is not None:
        return message
    for name, dtype in dtypes.items():
        method = _SCALED_METHODS.get(dtype[:2])
        if method is not None and any(name + suffix in dtypes for suffix in _SCALE_SUFFIXES):
            return _name_message(name, method)
    return None


def _first_name_message(
    names_and_methods: Sequence[tuple[re.Pattern[str], str]], dtypes: Mapping[str, str]
) -> str | None:
    """Return the message for the first tensor whose name shows a method; None if no name does."""
    for name in dtypes:
        for pattern, method in names_and_methods:
            if pattern.search(name):
                return _name_message(name, method)
    return None


def _name_message(name: str, method: str) -> str:
    advice = _ADVICE.get(method, _GENERAL_ADVICE)
    if method == "fp8":
        advice = f"add the config.json that describes its scales to the checkpoint, or {advice}"
    return f"{name!r} shows that it is quantised ({method}); {advice}"
