"""Inputs for a forward pass, by the names of the arguments of a model's `forward`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

BATCH = 2
TOKENS = 7
SAMPLES = 16000
"""Samples of sound.

These three lengths are unlikely as widths of a model, so an activation rarely has the shape of a weight. The product of
such an activation and the weight, entry by entry, would be taken for the weight with a scale (see `sources.SCALINGS`).
"""

MAX_INPUT_ENTRIES = 2**28
"""Maximum number of entries of an input; its shape comes from the model's config, which may contain any numbers."""


def arguments_to_try(model: Any) -> Iterator[dict[str, torch.Tensor]]:
    """Yield arguments to try for a model, the most complete ones first.

    In this order:

    1. the main input, with token ids and pixels if `forward` takes these;
    2. the main input alone;
    3. token ids alone;
    4. the model's own dummy inputs.

    The first two include the decoder's token ids if `forward` takes these. A choice is left out if `forward` does not
    take all of its inputs; one of the first three is also left out if `_MAKERS` has no function that makes one of its
    inputs. Sound is tried without and with a dimension of channels.
    """
    main = str(getattr(model, "main_input_name", "input_ids"))
    parameters = inspect.signature(model.forward).parameters
    makers = {name: make for name, make in _MAKERS.items() if name in parameters}
    needed = [main]
    if "decoder_input_ids" in makers and main != "decoder_input_ids":
        needed.append("decoder_input_ids")
    additions = [name for name in _ADDITIONS & makers.keys() if name not in needed]
    for names in ([*needed, *additions], needed, ["input_ids"]):
        if all(name in makers for name in names):
            arguments = {name: makers[name](model) for name in names}
            yield arguments
            if "input_values" in arguments:
                yield arguments | {"input_values": _sound_with_channels(model)}
    dummy_inputs = getattr(model, "dummy_inputs", {})
    if dummy_inputs and all(name in parameters for name in dummy_inputs):
        yield {name: value.to(model.device) for name, value in dummy_inputs.items() if isinstance(value, torch.Tensor)}


def _tokens(model: Any) -> torch.Tensor:
    return torch.ones((BATCH, TOKENS), dtype=torch.int64, device=model.device)


def _setting(model: Any, *names: str, default: int) -> int:
    """Return the first positive number that one of these settings has in the config, or in a config nested in it.

    Of a list, the first entry is taken. Return `default` if there is no such number.
    """
    config = model.config
    nested_configs = [value for value in vars(config).values() if hasattr(value, "to_dict")]
    for section in (config, *nested_configs):
        for name in names:
            value = getattr(section, name, None)
            value = value[0] if isinstance(value, (list, tuple)) and value else value
            if isinstance(value, int) and value > 0:
                return value
    return default


def _floats(model: Any, *shape: int) -> torch.Tensor:
    if math.prod(shape) > MAX_INPUT_ENTRIES:
        raise ValueError(f"by config.json an input has the shape {list(shape)}: more than {MAX_INPUT_ENTRIES} entries")
    return torch.full(shape, 0.5, dtype=torch.float32, device=model.device)


def _pixels(model: Any) -> torch.Tensor:
    side = _setting(model, "image_size", default=224)
    return _floats(model, BATCH, _setting(model, "num_channels", "in_channels", "in_chans", default=3), side, side)


def _features(model: Any) -> torch.Tensor:
    """Return spectra of speech, with two frames for each position of the encoder.

    The first convolutions of the encoder halve the number of frames.
    """
    length = 2 * _setting(model, "max_source_positions", default=50)
    return _floats(model, BATCH, _setting(model, "num_mel_bins", "n_mels", "feature_size", default=80), length)


def _sound_with_channels(model: Any) -> torch.Tensor:
    """Return sound as codecs take it, `[batch, channels, time]`."""
    return _floats(model, BATCH, _setting(model, "audio_channels", default=1), SAMPLES)


def _embeds(model: Any) -> torch.Tensor:
    return _floats(model, BATCH, TOKENS, _setting(model, "hidden_size", "d_model", "n_embd", default=64))


_MAKERS: dict[str, Callable[[Any], torch.Tensor]] = {  # by the name of the argument
    "input_ids": _tokens,
    "decoder_input_ids": _tokens,
    "pixel_values": _pixels,
    "input_features": _features,
    "input_values": lambda model: _floats(model, BATCH, SAMPLES),
    "inputs_embeds": _embeds,
    "hidden_states": _embeds,
}
_ADDITIONS = {"input_ids", "pixel_values"}
"""Inputs that a model may take in addition to its main input."""
