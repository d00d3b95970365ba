"""Watches forward passes: of a model, and of models inside it that its pass does not reach, such as image encoders."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from . import inputs
from .models import UntracedError, build
from .observations import Observations, extended_to_siblings
from .smaller import MAX_ENTRIES, smaller
from .watcher import Watcher

OUTPUT_HEAD = "an output head"


def observe(model: Any, *, trust_remote_code: bool = False) -> Observations:
    """Run a model, which is on the meta device, and return what the pass shows about its parameters.

    If the pass fails, a smaller model is run on the CPU, with initialised parameters.

    Raises:
        UntracedError: If the pass fails, and the smaller model does not help: it cannot be built, has more than
            `MAX_ENTRIES` entries, or fails in its pass, too.
    """
    try:
        return extended_to_siblings(_observe(model), shapes_of(model))
    except UntracedError as error:
        # The smaller model is first built without memory for its parameters and buffers, to count them.
        small_model = build(smaller(model.config), trust_remote_code=trust_remote_code)
        if sum(tensor.numel() for tensor in (*small_model.parameters(), *small_model.buffers())) > MAX_ENTRIES:
            raise
        small_model = build(smaller(model.config), trust_remote_code=trust_remote_code, device="cpu")
        observations = _observe(small_model)
        parts = _full_parts(observations.parts, observations.axes, model)
        observations = replace(observations, parts=parts, notes=(f"a smaller model was run: {error}",))
        return extended_to_siblings(observations, shapes_of(model))


def shapes_of(model: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's parameters by name."""
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _observe(model: Any) -> Observations:
    watcher = Watcher(dict(model.named_parameters()))
    with torch.no_grad(), torch.device(model.device), watcher:
        error = _run(model)
        if error is not None:
            raise UntracedError(f"the forward pass failed: {error}")
        for name, module in model.named_modules():
            if name and _is_unseen_model(name, module, watcher):
                _run(module)  # If this fails, nothing is known about some parameters of the module: that is no error.
    return _summary(model, watcher)


def _run(module: Any) -> str | None:
    """Call a module with the first inputs that it accepts; return None, or, if it accepts none, the reason.

    The reason is the first error of making inputs or calling the module; without an error, there were no inputs to try.
    """
    first_error = None
    arguments_to_try = inputs.arguments_to_try(module)
    while True:
        try:
            arguments = next(arguments_to_try, None)
            if arguments is None:
                break
            module(**arguments)
        except Exception as error:  # noqa: BLE001
            message = str(error).strip().splitlines() or [""]
            first_error = first_error or f"{type(error).__name__}: {message[0][:200]}"
        else:
            return None
    return first_error or "no inputs are known for it"


def _is_unseen_model(prefix: str, module: Any, watcher: Watcher) -> bool:
    """Whether a module is a model of its own, such as an image encoder, and no product with its matrices was seen."""
    from transformers import PreTrainedModel

    if not isinstance(module, PreTrainedModel):
        return False
    names = [f"{prefix}.{name}" for name, parameter in module.named_parameters() if parameter.ndim >= 2]
    return bool(names) and not any(watcher.uses[name].axes for name in names if name in watcher.uses)


def _summary(model: Any, watcher: Watcher) -> Observations:
    axes = {name: use.certain_axes for name, use in watcher.uses.items()}
    reasons = {name: use.dense_reason for name, use in watcher.uses.items()}
    for name in _output_head_names(model):
        reasons[name] = reasons.get(name) or OUTPUT_HEAD
    return Observations(
        {name: roles for name, roles in axes.items() if roles is not None},
        {name: reason for name, reason in reasons.items() if reason is not None},
        watcher.outputs.parts(),
    )


def _output_head_names(model: Any) -> list[str]:
    """Return the names of those parameters of a model's output head that have two dimensions or more."""
    head = None
    with contextlib.suppress(Exception):  # a model without a head may raise
        head = model.get_output_embeddings()
    ids = {id(parameter) for parameter in head.parameters()} if isinstance(head, torch.nn.Module) else set()
    return [name for name, parameter in model.named_parameters() if id(parameter) in ids and parameter.ndim >= 2]


def _full_parts(
    parts: Mapping[str, tuple[int, ...]], axes: Mapping[str, Any], model: Any
) -> dict[str, tuple[int, ...]]:
    """Return the parts of the full model's parameters from the `parts` of the smaller model's.

    Equal parts are scaled. Unequal ones are left out, because their lengths in the full model are not known.
    """
    full_parts = {}
    for name, shape in shapes_of(model).items():
        lengths = parts.get(name, ())
        if name in axes and len(set(lengths)) == 1:
            rows = shape[axes[name].index("out")]
            full_parts[name] = (rows // len(lengths),) * len(lengths)
    return full_parts
