"""Shrink a config: same blocks and names, fewer channels, a short vocabulary.

If a model cannot run on the meta device, its smaller copy, with initialised parameters, is run on the CPU instead.
"""

from __future__ import annotations

import copy
import re
from typing import Any

MAX_ENTRIES = 2 * 10**8
"""Largest number of entries of all parameters and buffers of a model that is run on the CPU."""

MAX_FACTOR = 8
"""Largest factor by which widths are divided; a power of two."""

MAX_VOCABULARY = 2048
"""Size to which a larger vocabulary is shortened."""

_WIDTHS = re.compile(
    r"^(?:hidden_size|\w*intermediate_size\w*|ffn_dim|\w+_ffn_dim|d_model|d_ff|d_inner|n_embd|n_inner|n_hidden|dim|"
    r"hidden_dim|embed_dim|num_\w*heads|n_heads?|\w*attention_heads|num_key_value_heads)$"
)
"""Settings that are widths, or numbers of heads, which are divided like widths."""


def smaller(config: Any) -> Any:
    """Return a copy of a config and of the configs nested in it, with smaller widths and a short vocabulary.

    All widths and numbers of heads are divided by one factor, which may be 1. Each head keeps its size, so that
    settings of rotary position embeddings, which count dimensions of a head, stay valid.
    """
    config = copy.deepcopy(config)
    sections = [config, *[value for value in vars(config).values() if hasattr(value, "to_dict")]]
    factor = _common_factor(sections)
    for section in sections:
        for name, value in list(vars(section).items()):
            if _is_width(name, value):
                setattr(section, name, value // factor)
            elif name == "vocab_size" and isinstance(value, int):
                vocabulary = min(value, MAX_VOCABULARY)
                setattr(section, name, vocabulary)
                _limit_token_ids(section, vocabulary)
    return config


def _common_factor(sections: list[Any]) -> int:
    """Return the largest power of two up to `MAX_FACTOR` that divides every width and leaves at least two heads.

    It is 1 if no larger one does. With a single head, a split inside the head, such as that of a rotary embedding,
    could not be distinguished from a split of the whole output into fused matrices. For keys and values, one head is
    enough.
    """
    values = [(name, value) for section in sections for name, value in vars(section).items() if _is_width(name, value)]
    factor = MAX_FACTOR
    while factor > 1 and not all(_may_divide(factor, name, value) for name, value in values):
        factor //= 2
    return factor


def _is_width(name: str, value: Any) -> bool:
    """Whether a setting is a width or a number of heads, and more than 1."""
    return isinstance(value, int) and value > 1 and _WIDTHS.search(name) is not None


def _may_divide(factor: int, name: str, value: int) -> bool:
    """Whether a factor divides a width; for a number of heads, also whether enough heads are left."""
    minimum = 2 if "head" in name and "key_value" not in name else 1
    return value % factor == 0 and value // factor >= minimum


def _limit_token_ids(config: Any, vocabulary: int) -> None:
    """Replace ids of special tokens beyond the shorter vocabulary by the last id that is in it; lists of ids stay."""
    for name, value in list(vars(config).items()):
        if name.endswith("_token_id") and isinstance(value, int) and value >= vocabulary:
            setattr(config, name, vocabulary - 1)
