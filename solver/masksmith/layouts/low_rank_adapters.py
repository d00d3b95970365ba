"""Parameters of low-rank and other small adapters, recognised by the names that libraries of adapters give these.

The libraries are peft, diffusers, kohya's scripts, adapters and transformers.
"""

from __future__ import annotations

import re

_PEFT = (
    r"lora_(?:embedding_)?[ABEab]",
    r"(?:rand|gra|g|de|tiny|vb|uni|poly_|supertuning_)lora_\w+",
    r"(?:hada_[wt]|lokr_[wt])\d(?:_[ab])?",
    r"(?:miss|bone)_block",
    r"oft_(?:embedding_)?[Rr]",
    r"boft_[Rs]",
    r"ia3_l",
    r"p?vera_(?:[AB]|lambda_[bd])",
    r"(?:lily|hira|peanut|frod|psoft|adamss|deft)_(?:embedding_)?[ABPRUV]",
    r"(?:peanut_(?:en|de)coders|c3a_kernel|hra_u|shira_weight|(?:fourierft|waveft)_spectrum)",
)
_OTHERS = (
    r"lora_(?:down|up|mid|linear_layer)",  # kohya; diffusers up to version 0.17
    r"(?:\w+_)?lora\.(?:down|up)",  # diffusers: `to_q_lora.down`, `to_q.lora.up`
    r"oft_(?:blocks|diag)",  # kohya, LyCORIS
    r"adapter_(?:down|up)",  # adapters
    r"\w+_adapter_list",  # Zamba2 in transformers
)
_ADAPTER = re.compile(rf"(?:^|\.)(?:{'|'.join((*_PEFT, *_OTHERS))})(?:\.|$)")


def is_adapter(name: str) -> bool:
    """Whether a tensor is a parameter of an adapter."""
    return _ADAPTER.search(name) is not None
