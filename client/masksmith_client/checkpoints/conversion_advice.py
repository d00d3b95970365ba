"""What the user can do about a model whose weights are not safetensors, or are in a subdirectory."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from masksmith_wire.output_names import PICKLE_SUFFIXES, is_index_name

_PART = re.compile(r"-\d+-of-\d+\.\w+$")
"""How the name of one file of a sharded model ends, such as `-00001-of-00004.bin`."""
_PART_OF_SPLIT_TENSORS = re.compile(
    r"^consolidated\.\d+\.pth$|^mp_rank_\d+|^(?:layer|model)_\d+-model_\d+-|zero_pp_rank_\d+"
)
"""Names of files and folders of Meta, Megatron and DeepSpeed with a part of each tensor or of the optimizer state."""

STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")
"""Members in which training checkpoints commonly store the model's state dict, beside that of the optimizer."""

_SPLIT_TENSORS_ADVICE = (
    "Its tensors are split over several files: export the model to the format of transformers with the script of its "
    "architecture there, or with the tool of the program that wrote it"
)

_MAX_SHOWN = 4
"""Maximum number of directories that a message names."""


def pickle_message(path: Path) -> str:
    """Say why a pickle, or the index of pickles, is not read, and how to convert it."""
    kind = "a pickle, which can run code when it is loaded"
    if is_index_name(path.name):
        kind = "the index of pickles, which can run code when they are loaded"
    reason = f"{path} is {kind}, so masksmith reads only safetensors"
    if is_index_name(path.name) or _PART.search(path.name):
        return (
            f"{reason}. Convert the model once, with its class in transformers: AutoModelForCausalLM.from_pretrained("
            f"{str(path.parent)!r}).save_pretrained('converted')"
        )
    if _has_split_tensors(path):
        return f"{reason}. {_SPLIT_TENSORS_ADVICE}"
    return f"{reason}. Convert it once: {_conversion(path)}"


def no_weights_message(folder: Path) -> str:
    """Say that a directory has no safetensors file, and what it has instead: another format, or directories of models.

    Raises:
        OSError: If it cannot be read.
    """
    paths = sorted(folder.iterdir())
    gguf = next((path for path in paths if path.suffix == ".gguf"), None)
    if gguf is not None:
        return (
            f"{gguf} is a GGUF file, whose weights are quantised; convert it to safetensors first, such as by "
            f"transformers with GgufConfig(dequantize=True)"
        )
    pickle = next((path for path in paths if path.suffix in PICKLE_SUFFIXES), None)
    if pickle is not None:
        return pickle_message(pickle)
    if any(path.suffix == ".distcp" for path in paths):
        return (
            f"{folder} is a distributed checkpoint of torch (DCP). Convert it once: python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {shlex.quote(str(folder))} model.pt; then, for "
            f"the state dict of the model: {_conversion(Path('model.pt'))}"
        )
    models = _models_below(folder)
    pickle_below = None if models else _pickle_below(folder)
    if pickle_below is not None:
        text = f"{folder} contains no .safetensors file, but pickles of a training program, such as {pickle_below}"
        return f"{text}. {_SPLIT_TENSORS_ADVICE}"
    return f"{folder} contains no .safetensors file{_models_text(models)}"


def _conversion(path: Path) -> str:
    """Return a command that converts a pickled state dict, or the state dict in a pickled training checkpoint.

    The safetensors file is written beside the pickle, where the model's config is. Tied and transposed tensors are
    stored as copies; members that are no tensors, such as the number of steps, are left out. The path may be
    untrusted: it is quoted for Python and for the shell, so that no part of it is run.
    """
    source, target = (json.dumps(str(name), ensure_ascii=False) for name in (path, path.with_suffix(".safetensors")))
    code = (
        f'import torch, safetensors.torch as s; saved = torch.load({source}, weights_only=True, map_location="cpu"); '
        f"state = next((saved[key] for key in {json.dumps(STATE_DICT_KEYS)} "
        f"if isinstance(saved.get(key), dict)), saved); "
        f"s.save_file({{name: tensor.contiguous().clone() for name, tensor in state.items() "
        f"if isinstance(tensor, torch.Tensor)}}, {target})"
    )
    return f"python -c {shlex.quote(code)}"


def _models_below(folder: Path) -> list[Path]:
    """Return the subdirectories that have safetensors files: components of diffusers, or snapshots of a download."""
    paths = [path for pattern in ("*", "snapshots/*", "models--*/snapshots/*") for path in sorted(folder.glob(pattern))]
    return [path for path in paths if path.is_dir() and next(path.glob("*.safetensors"), None) is not None]


def _pickle_below(folder: Path) -> Path | None:
    """Return a file of split tensors in a subdirectory, such as `iter_0000001/mp_rank_00/model_optim_rng.pt`."""
    paths = (path for pattern in ("*/*", "*/*/*") for path in sorted(folder.glob(pattern)))
    pickles = (path for path in paths if path.suffix in PICKLE_SUFFIXES)
    return next((path for path in pickles if _has_split_tensors(path)), None)


def _has_split_tensors(path: Path) -> bool:
    return any(_PART_OF_SPLIT_TENSORS.search(name) is not None for name in (path.name, path.parent.name))


def _models_text(models: Sequence[Path]) -> str:
    if not models:
        return ""
    more = ", ..." if len(models) > _MAX_SHOWN else ""
    return f", but these directories contain some; name one of them: {', '.join(map(str, models[:_MAX_SHOWN]))}{more}"
