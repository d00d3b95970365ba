"""`masksmith prune --calibration-text`: prune a language model block by block, each on the pruned ones before it.

The model is loaded as a whole, in float32, and pruned by `masksmith.prune`; its weights are then written in the dtypes
of the checkpoint.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from masksmith_client._errors import InputError
from masksmith_client.checkpoints.calibration_text import CalibrationText
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.choice import Choice
from masksmith_client.checkpoints.prune_method import PruneMethod
from masksmith_client.checkpoints.solved import Solve, SolvedTensor, TensorToSolve

from .local import library

BATCH_WINDOWS = 8
TORCH_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def block_solver(
    checkpoint: Checkpoint, choice: Choice, method: PruneMethod, *, threads: int | None, trust_remote_code: bool
) -> Solve:
    """Return what prunes the model at its first use, and yields masks and weights of its tensors.

    Raises:
        InputError: If a package is missing, the text is too short, or the model does not have a tensor as a parameter.
    """
    masksmith = library()
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"--calibration-text needs {' and '.join(missing)}: pip install 'masksmith[huggingface]'")
    assert method.text is not None
    model = _load_model(checkpoint, trust_remote_code=trust_remote_code)
    _check_parameters(model, choice)
    batches = _batches(checkpoint, method.text, trust_remote_code=trust_remote_code)

    def solve(tensors: Iterator[TensorToSolve]) -> Generator[SolvedTensor]:
        first = next(tensors, None)
        if first is None:
            return
        try:
            report = _prune(masksmith, model, batches, choice, method, threads)
        except masksmith.MasksmithError as error:
            raise InputError(str(error)) from None
        weights = {weight.name: weight for block in report.blocks for weight in block.weights}
        for tensor in (first, *tensors):
            yield _solved(model, tensor, weights[tensor.chosen.name], method)

    return solve


def _prune(
    masksmith: Any, model: Any, batches: list[Any], choice: Choice, method: PruneMethod, threads: int | None
) -> Any:
    update = method.update
    layouts = {each.name: str(each.layout) for each in choice.masked}
    return masksmith.prune(
        model,
        batches,
        {each.name: each.pattern for each in choice.masked},
        scores=method.scores.name,
        score_options=method.scores.options,
        update=None if update is None else update.name,
        update_options={} if update is None else update.options,
        layers=list(layouts),
        layouts=layouts,
        threads=threads,
    )


def _load_model(checkpoint: Checkpoint, *, trust_remote_code: bool) -> Any:
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    with _loading("language model", checkpoint):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            checkpoint.folder, dtype=torch.float32, local_files_only=True, trust_remote_code=trust_remote_code
        )
    return model.eval()


@contextmanager
def _loading(what: str, checkpoint: Checkpoint) -> Iterator[None]:
    """Turn what transformers raises while it loads a part of a checkpoint into one line."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"the {what} of {checkpoint.folder} cannot be loaded: {reason}") from None


def _check_parameters(model: Any, choice: Choice) -> None:
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for tensor in choice.masked:
        if shapes.get(tensor.name) != tensor.shape:
            held = "is not a parameter" if tensor.name not in shapes else f"has the shape {list(shapes[tensor.name])}"
            raise InputError(
                f"{tensor.name!r} {held} of the loaded model; exclude it, or calibrate with masksmith.prune in Python"
            )


def _batches(checkpoint: Checkpoint, text: CalibrationText, *, trust_remote_code: bool) -> list[Any]:
    """Cut the beginning of the text into batches of whole windows."""
    import transformers

    with _loading("tokenizer", checkpoint):
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
    return [{"input_ids": part} for part in ids[:needed].reshape(text.windows, text.tokens).split(BATCH_WINDOWS)]


def _solved(model: Any, tensor: TensorToSolve, report: Any, method: PruneMethod) -> SolvedTensor:
    chosen = tensor.chosen
    mask = np.asarray(report.mask)
    certificate: dict[str, Any] = {
        **report.proof,
        "density": float(mask.mean()),
        "kept": int(np.count_nonzero(mask)),
    }
    if method.update is None:
        return SolvedTensor(chosen.name, mask, certificate)
    errors = {key: getattr(report, key) for key in ("error", "masked_error", "energy", "update_s")}
    certificate["update"] = {"method": str(method.update), **errors}
    return SolvedTensor(chosen.name, mask, certificate, _stored(model.get_parameter(chosen.name), chosen.dtype))


def _stored(parameter: Any, dtype: str) -> bytes:
    """Return a parameter's bytes in a dtype, rounded to nearest."""
    import torch

    values = parameter.detach().to(getattr(torch, TORCH_DTYPES[dtype])).contiguous()
    return bytes(values.view(torch.uint8).numpy().data)
