"""Cuts a calibration text into batches of whole windows of tokens."""

from __future__ import annotations

from typing import Any

from masksmith_client._errors import InputError
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.prune_method import PruneMethod

from .skeleton import loading

BATCH_WINDOWS = 8


def calibration_batches(
    checkpoint: Checkpoint, method: PruneMethod, model: Any, *, trust_remote_code: bool
) -> list[dict[str, Any]]:
    """Return the beginning of a text as batches of token ids.

    Raises:
        InputError: If the tokenizer cannot be loaded, the text is too short, or its tokens do not fit the model.
    """
    import transformers

    text = method.text
    assert text is not None
    longest = getattr(model.config, "max_position_embeddings", None)
    if isinstance(longest, int) and text.tokens > longest:
        raise InputError(
            f"windows of {text.tokens} tokens are longer than the model's {longest}; lower --calibration-tokens"
        )
    with loading("tokenizer", checkpoint):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            checkpoint.folder, local_files_only=True, trust_remote_code=trust_remote_code
        )
    ids = tokenizer(text.read(), return_tensors="pt", verbose=False).input_ids[0]
    needed = text.windows * text.tokens
    if len(ids) < needed:
        raise InputError(
            f"{text.path} has {len(ids)} tokens, and {text.windows} windows of {text.tokens} need {needed}: give more "
            f"text, or fewer --calibration-windows"
        )
    ids = ids[:needed]
    rows = model.get_input_embeddings().weight.shape[0]
    if int(ids.max()) >= rows:
        raise InputError(f"the tokenizer of {checkpoint.folder} gives token {int(ids.max())}, and the model has {rows}")
    return [{"input_ids": part} for part in ids.reshape(text.windows, text.tokens).split(BATCH_WINDOWS)]
