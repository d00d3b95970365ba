"""Shrink a config: the same blocks and names with fewer channels, so that the model can run with real values."""

from __future__ import annotations

import copy
import re
from typing import Any

MAX_ENTRIES = 2 * 10**8
"""Largest number of parameters of a model that is run with real values."""

FACTOR = 8
"""Largest factor by which widths are divided; a power of two."""

MAX_VOCABULARY = 2048
_WIDTHS = re.compile(
    r"^(?:hidden_size|\w*intermediate_size\w*|ffn_dim|\w+_ffn_dim|d_model|d_ff|d_inner|n_embd|n_inner|n_hidden|dim|"
    r"hidden_dim|embed_dim|num_\w*heads|n_heads?|\w*attention_heads|num_key_value_heads)$"
)


def smaller(config: Any) -> Any:
    """Return a copy whose widths and numbers of heads are divided by one factor, and whose vocabulary is short.

    Heads keep their size, so that positions and their parts stay as they are.
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
    """Return the largest power of two up to `FACTOR` that divides every width and leaves at least two heads.

    With a single head, parts of the head would look like parts of the whole output.
    """
    values = [(name, value) for section in sections for name, value in vars(section).items() if _is_width(name, value)]
    factor = FACTOR
    while factor > 1 and not all(_divides(factor, name, value) for name, value in values):
        factor //= 2
    return factor


def _is_width(name: str, value: Any) -> bool:
    return isinstance(value, int) and value > 1 and _WIDTHS.search(name) is not None


def _divides(factor: int, name: str, value: int) -> bool:
    minimum = 2 if "heads" in name and "key_value" not in name else 1
    return value % factor == 0 and value // factor >= minimum


def _limit_token_ids(config: Any, vocabulary: int) -> None:
    """Replace the ids of special tokens that are not in the shorter vocabulary by the last id that is in it."""
    for name, value in list(vars(config).items()):
        if name.endswith("_token_id") and isinstance(value, int) and value >= vocabulary:
            setattr(config, name, vocabulary - 1)
