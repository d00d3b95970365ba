"""Cuts a calibration text into batches of whole windows of tokens."""

from __future__ import annotations

from typing import Any

from masksmith_client._errors import InputError
from masksmith_client.checkpoints.calibration_text import CalibrationText
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.prune_method import PruneMethod
from masksmith_wire.quantities import count_text

from .skeleton import converting_load_errors

BATCH_WINDOWS = 2
"""Maximum number of windows of a batch. A step of tuning takes one batch; with eight windows, a step takes four times
as long, and the pruned model's perplexity is no better."""


def calibration_batches(
    checkpoint: Checkpoint, method: PruneMethod, model: Any, *, trust_remote_code: bool
) -> list[dict[str, Any]]:
    """Return the beginning of the method's text as batches `{"input_ids": ids}` with token ids `[windows, tokens]`.

    Raises:
        InputError: If the tokenizer or the text cannot be read; the text is too short; the windows are longer than the
            model allows; or the model has no embedding for a token of the text.
    """
    import transformers

    text = method.text
    assert text is not None
    _check_window(text, model.config)
    with converting_load_errors("tokenizer", checkpoint):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            checkpoint.folder, local_files_only=True, trust_remote_code=trust_remote_code
        )
    ids = _first_tokens(tokenizer, text)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if int(ids.max()) >= vocabulary:
        raise InputError(
            f"the tokenizer of {checkpoint.folder} produces token {int(ids.max())}, but the model has {vocabulary} "
            "embeddings"
        )
    return [{"input_ids": batch} for batch in ids.reshape(text.windows, text.tokens).split(BATCH_WINDOWS)]


def _check_window(text: CalibrationText, config: Any) -> None:
    max_tokens = getattr(config, "max_position_embeddings", None)
    if isinstance(max_tokens, int) and 0 < max_tokens < text.tokens:  # XLNet has -1 for no maximum
        raise InputError(
            f"windows of {count_text(text.tokens)} tokens are longer than the model's maximum of "
            f"{count_text(max_tokens)}; lower --calibration-tokens"
        )


def _first_tokens(tokenizer: Any, text: CalibrationText) -> Any:
    """Return the ids of the first `windows * tokens` tokens of the text."""
    ids = tokenizer(text.read(), return_tensors="pt", verbose=False).input_ids[0]
    needed = text.windows * text.tokens
    if len(ids) < needed:
        raise InputError(
            f"{text.path} has {count_text(len(ids))} tokens; {count_text(text.windows)} windows of "
            f"{count_text(text.tokens)} need {count_text(needed)}: give a longer text, or fewer --calibration-windows"
        )
    return ids[:needed]
