"""Inputs for a forward pass, by the names of the arguments of a model's `forward`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch

BATCH = 2
TOKENS = 7
SAMPLES = 16000
"""Lengths that no model is likely to use as its width, so that an activation has another shape than a weight."""


def attempts(model: Any) -> Iterator[dict[str, torch.Tensor]]:
    """Yield arguments for a model: first all known inputs, then its main input alone, then its dummy inputs."""
    main = str(getattr(model, "main_input_name", "input_ids"))
    takes = inspect.signature(model.forward).parameters
    makers = {name: make for name, make in _MAKERS.items() if name in takes}
    needed = [main] + (["decoder_input_ids"] if "decoder_input_ids" in makers else [])
    for names in (dict.fromkeys([*needed, *_SECOND & makers.keys()]), dict.fromkeys(needed), {"input_ids": None}):
        if all(name in makers for name in names):
            arguments = {name: makers[name](model) for name in names}
            yield arguments
            if "input_values" in arguments:
                yield arguments | {"input_values": _channels(model)}
    dummies = getattr(model, "dummy_inputs", {})
    if dummies and all(name in takes for name in dummies):
        yield {name: value.to(model.device) for name, value in dummies.items() if isinstance(value, torch.Tensor)}


def _tokens(model: Any) -> torch.Tensor:
    return torch.ones((BATCH, TOKENS), dtype=torch.int64, device=model.device)


def _setting(model: Any, *names: str, default: int) -> int:
    """Return the first of several settings that the config, or a config nested in it, has."""
    config = model.config
    for each in (config, *[value for value in vars(config).values() if hasattr(value, "to_dict")]):
        for name in names:
            value = getattr(each, name, None)
            value = value[0] if isinstance(value, (list, tuple)) and value else value
            if isinstance(value, int) and value > 0:
                return value
    return default


def _floats(model: Any, *shape: int) -> torch.Tensor:
    return torch.full(shape, 0.5, dtype=torch.float32, device=model.device)


def _pixels(model: Any) -> torch.Tensor:
    side = _setting(model, "image_size", default=224)
    return _floats(model, BATCH, _setting(model, "num_channels", "in_channels", "in_chans", default=3), side, side)


def _features(model: Any) -> torch.Tensor:
    """Spectra of speech, whose length the first convolutions of the encoder halve."""
    length = 2 * _setting(model, "max_source_positions", default=50)
    return _floats(model, BATCH, _setting(model, "num_mel_bins", "n_mels", "feature_size", default=80), length)


def _channels(model: Any) -> torch.Tensor:
    """Return sound as codecs take it, `[batch, channels, time]`."""
    return _floats(model, BATCH, _setting(model, "audio_channels", default=1), SAMPLES)


def _embeds(model: Any) -> torch.Tensor:
    return _floats(model, BATCH, TOKENS, _setting(model, "hidden_size", "d_model", "n_embd", default=64))


_MAKERS: dict[str, Callable[[Any], torch.Tensor]] = {
    "input_ids": _tokens,
    "decoder_input_ids": _tokens,
    "pixel_values": _pixels,
    "input_features": _features,
    "input_values": lambda model: _floats(model, BATCH, SAMPLES),
    "inputs_embeds": _embeds,
    "hidden_states": _embeds,
}
_SECOND = {"input_ids", "pixel_values"}
