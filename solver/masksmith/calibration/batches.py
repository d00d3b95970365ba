"""Runs a model on a batch, and says which batch does not fit the model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

LAZY_REASON = "its shape is not known before its layer has run: run a batch through the model first"
"""Why a parameter of a layer such as `torch.nn.LazyLinear` is refused."""


def call_model(model: torch.nn.Module, batch: Any) -> Any:
    """Call a model with a batch: a mapping of keywords, a tuple or list of arguments, or one argument."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, (tuple, list)) else model(batch)


def fits_signature(model: torch.nn.Module, batch: Any) -> bool:
    """Whether a model's `forward` takes as many arguments, or the keywords, that a batch has."""
    signature = inspect.signature(model.forward)
    try:
        if isinstance(batch, Mapping):
            signature.bind(**batch)
        else:
            signature.bind(*(batch if isinstance(batch, (tuple, list)) else (batch,)))
    except TypeError:
        return False
    return True


def unfit_reason(batch: Any, number: int, error: Exception) -> str:
    """Return the message for an error that a model raised when it was called with batch `number`."""
    keys = f" of {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else f" ({type(batch).__name__})"
    message = (str(error).strip().splitlines() or [""])[0]
    return f"batch {number}{keys} does not fit the model: {type(error).__name__}: {message}"
