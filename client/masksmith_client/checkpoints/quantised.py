"""Recognizes quantised checkpoints, whose stored numbers are not the weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_ADVICE = {
    "fp8": "load it by transformers with dequantize=True in its quantization config and save it as bfloat16",
    "mxfp4": "load it by transformers with Mxfp4Config(dequantize=True) and save it as bfloat16",
    "compressed-tensors": "load it by transformers with CompressedTensorsConfig(run_compressed=False) and save it",
    "bitsandbytes": "load it by transformers, call model.dequantize(), and save it",
}
_ANY = "prune the checkpoint that it was made from, or dequantise it and save it as bfloat16"

_MARKS = (
    (re.compile(r"(?:^|\.)qweight$"), "gptq or awq"),
    (re.compile(r"(?:^|\.)weight_packed$"), "compressed-tensors"),
    (re.compile(r"\.weight\.(?:absmax|quant_map|quant_state\S*)$|(?:^|\.)SCB$"), "bitsandbytes"),
    (re.compile(r"\w+_blocks$"), "mxfp4"),
    (re.compile(r"weight_scale_inv$|_scale_inv$"), "fp8"),
)


def quantisation(config: Mapping[str, Any] | None, dtypes: Mapping[str, str]) -> str | None:
    """Say how a checkpoint is quantised and what to do about it; None if it is not.

    Args:
        config: Its `config.json`.
        dtypes: Dtypes of all tensors by name.
    """
    described = (config or {}).get("quantization_config") or (config or {}).get("compression_config")
    if isinstance(described, Mapping):
        named = str(described.get("quant_method") or "unknown method")
        return f"its config names the quantisation {named!r}; {_ADVICE.get(named, _ANY)}"
    for name, dtype in dtypes.items():
        method = next((method for form, method in _MARKS if form.search(name)), None)
        if method is None and dtype.startswith(("F8", "F4", "F6")) and _has_scale(name, dtypes):
            method = "fp8"
        if method is not None:
            return f"{name!r} shows that it is quantised ({method}); {_ADVICE.get(method, _ANY)}"
    return None


def _has_scale(name: str, dtypes: Mapping[str, str]) -> bool:
    return any(name + suffix in dtypes for suffix in ("_scale", "_scale_inv", ".scale"))
