"""Build the model of a checkpoint without its weights, from local files: its config, and remote code if trusted."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from masksmith._torch_modes import without_fused_attention
from masksmith_client._errors import InputError
from masksmith_client.checkpoints.config import read_config as read_checkpoint_config

from .size_limits import excessive_count

CONFIG_NAME = "config.json"
REMOTE_CODE_IS_NOT_RUN = "the code that the checkpoint brings (auto_map) is not run unless remote code is trusted"

_SETTINGS_LOCK = threading.RLock()
"""Held while `tracing_settings` is active."""


class UntracedError(Exception):
    """The config cannot be read, or the model cannot be built, run or compared with the checkpoint.

    The message is the reason, for a note.
    """


def read_config(directory: Path) -> dict[str, Any]:
    """Read a checkpoint's config.

    Raises:
        UntracedError: If there is no config, it cannot be read, it is not a JSON object, or it gives the model too many
            parts.
    """
    try:
        config = read_checkpoint_config(directory)
    except InputError as error:
        raise UntracedError(str(error)) from None
    if config is None:
        raise UntracedError(f"there is no {CONFIG_NAME}")
    message = excessive_count(config)
    if message is not None:
        raise UntracedError(message)
    return config


def load_config(directory: Path, *, trust_remote_code: bool = False) -> Any:
    """Return the config as an object of the class for its model type, from `transformers` or from trusted remote code.

    Quantisation and dtype are left out of the config, unless its class is remote code.

    Raises:
        UntracedError: If the config cannot be read, there is no class for its model type, or the class refuses it.
    """
    from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

    content = read_config(directory)
    if trust_remote_code and content.get("auto_map"):
        with as_untraced_errors("the config cannot be built"):
            return AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=True)
    with as_untraced_errors("the config cannot be built"):
        # Read again by transformers, which converts {"__float__": "Infinity"} to a number.
        content, _ = PreTrainedConfig.get_config_dict(directory, local_files_only=True)
    brings_code = content.pop("auto_map", None) is not None
    for name in ("quantization_config", "dtype", "torch_dtype"):
        content.pop(name, None)
    model_type = content.pop("model_type", None)
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        reason = f"; {REMOTE_CODE_IS_NOT_RUN}" if brings_code else ""
        raise UntracedError(f"transformers has no model type {model_type!r}{reason}")
    with as_untraced_errors("the config cannot be built"):
        return CONFIG_MAPPING[model_type].from_dict(content)


def build(config: Any, *, trust_remote_code: bool = False, device: str = "meta") -> Any:
    """Build the model that a config names, in float32, for evaluation, and with plain attention.

    On the meta device its parameters take no memory.

    Raises:
        UntracedError: If the model's class is not known, or the model cannot be built.
    """
    config = _simplify(copy.deepcopy(config))
    with as_untraced_errors("the model cannot be built"), torch.device(device), torch.no_grad():
        model_class = _model_class(config)
        if model_class is not None:
            return model_class._from_config(config).float().eval()
        from transformers import AutoModel

        return AutoModel.from_config(config, trust_remote_code=trust_remote_code).float().eval()


@contextlib.contextmanager
def tracing_settings() -> Iterator[None]:
    """Within the context: forbid downloads, let `transformers` log errors only, and turn off fused attention of torch.

    The products inside fused attention cannot be watched. The settings belong to the whole process, so one thread at a
    time is in the context: otherwise the last one to leave it could restore what another thread has set.
    """
    from huggingface_hub import constants
    from transformers.utils import logging

    with _SETTINGS_LOCK:
        was_offline = constants.HF_HUB_OFFLINE
        verbosity = logging.get_verbosity()
        constants.HF_HUB_OFFLINE = True
        logging.set_verbosity_error()
        try:
            with without_fused_attention():
                yield
        finally:
            constants.HF_HUB_OFFLINE = was_offline
            logging.set_verbosity(verbosity)


def _simplify(config: Any) -> Any:
    """Change a config to plain attention, no caches, no pretrained backbones, no data-dependent routing; return it."""
    nested_configs = [value for value in vars(config).values() if hasattr(value, "to_dict")]
    for section in (config, *nested_configs):
        section.use_cache = False
        if getattr(section, "use_pretrained_backbone", False):
            section.use_pretrained_backbone = False
    config._attn_implementation = "eager"
    with contextlib.suppress(Exception):  # versions and models that have no such choice
        config._experts_implementation = "batched_mm"
    return config


def _model_class(config: Any) -> Any:
    """Return the first class in the config's `architectures` that `transformers` has for this config, or None."""
    import transformers

    for name in config.architectures or ():
        model_class: Any = getattr(transformers, str(name), None)
        config_class: Any = getattr(model_class, "config_class", None)
        is_model = isinstance(model_class, type) and issubclass(model_class, transformers.PreTrainedModel)
        if is_model and config_class is not None and isinstance(config, config_class):
            return model_class
    return None


@contextlib.contextmanager
def as_untraced_errors(failure: str) -> Iterator[None]:
    """Raise any error of the block as an `UntracedError`, whose message begins with `failure`."""
    try:
        yield
    except Exception as error:
        message = str(error).strip().splitlines() or [""]
        raise UntracedError(f"{failure}: {type(error).__name__}: {message[0][:200]}") from error
