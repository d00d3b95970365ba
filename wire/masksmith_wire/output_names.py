"""Names of files in a model's directory: those of weights, and those of files that masksmith adds."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

MASKS_NAME = "masks.safetensors"
RECORD_NAME = "masksmith.json"
JOURNAL_NAME = ".masksmith-journal.jsonl"
"""File of an unfinished output: the journal of the command line, or the marker of a job's output."""
BLOCK_REPORT_NAME = "masksmith-blocks.json"
BLOCK_PAGE_NAME = "masksmith-blocks.html"
BLOCKS_NAME = ".masksmith-blocks"
"""Folder of finished blocks and activations while a model is pruned block by block."""
OWN_FILES = frozenset({MASKS_NAME, RECORD_NAME, JOURNAL_NAME, BLOCK_REPORT_NAME, BLOCK_PAGE_NAME})
"""Names of the files that masksmith adds."""
PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
WEIGHT_SUFFIXES = PICKLE_SUFFIXES | {
    ".safetensors", ".gguf", ".ggml", ".h5", ".msgpack", ".onnx", ".onnx_data", ".ot", ".tflite", ".mlmodel", ".npz",
    ".distcp", ".keras", ".nemo", ".pdparams", ".params", ".pb", ".engine", ".plan", ".pte", ".pt2", ".llamafile",
    ".pdiparams", ".trt", ".jit", ".torchscript", ".ptl", ".mnn", ".ncnn", ".param", ".rknn", ".hef", ".qnn", ".dlc",
    ".dduf", ".mlx", ".ort", ".om", ".nb", ".caffemodel", ".weights", ".t7", ".joblib", ".task", ".litertlm",
}  # fmt: skip
WEIGHT_FOLDERS = frozenset({"original", "consolidated", "onnx", "openvino", "coreml", "gguf", "saved_model"})
"""Folders with the same model in another format."""
_WEIGHT_FOLDER_SUFFIXES = (".mlpackage", ".mlmodelc")

_WEIGHTS = re.compile(
    r"\.onnx|\.ckpt(?:-\d+)?\.(?:index|meta)$|^variables\.index$|\.data-\d+-of-\d+$|^openvino_.*\.xml$"
    r"|(?:^|[._-])(?:model|weights|checkpoint|params)(?:[._-][\w.-]*)?\.(?:npy|tar|tgz|zip|7z)(?:\.(?:gz|bz2|xz|zst|\d+))*$",
    re.IGNORECASE,
)
"""Names of files of weights that no suffix shows: parts of ONNX models, of checkpoints of TensorFlow and of OpenVINO;
arrays and archives that are named as a model."""
_COPY_SUFFIX = re.compile(
    r"(?:\.(?:bak|old|orig|backup|save|part\w*|te?mp|download|incomplete|crdownload|gz|bz2|xz|zst|lz4|zip|7z|tar|\d+)"
    r"|-split-\w+|~)+$",
    re.IGNORECASE,
)
"""The end of the name of a copy, a part, an unfinished download or a compressed file, as `.bak` is in
`model.safetensors.bak`; a name may have several, as `model.safetensors.zst.1` has."""

_INDEX_SUFFIX = re.compile(r"\.index(?:\.[\w-]+)?\.json$")
"""The end of the name of an index; before `.json` it may have a variant, such as `fp16`."""


def is_index_name(name: str) -> bool:
    """Whether a name is that of an index of files of weights: `*.index.json`, or `*.index.fp16.json` of a variant."""
    return _INDEX_SUFFIX.search(name) is not None


def without_index_suffix(name: str) -> str:
    """Return a name without the end that shows an index; a name without such an end is returned unchanged."""
    return _INDEX_SUFFIX.sub("", name)


def is_weights_name(name: str) -> bool:
    """Whether a name is that of a file of weights, in any format, or of an index of such files."""
    whole_name = _COPY_SUFFIX.sub("", without_index_suffix(name))
    return PurePosixPath(whole_name).suffix.lower() in WEIGHT_SUFFIXES or _WEIGHTS.search(name) is not None


def is_weights_folder(name: str) -> bool:
    """Whether a name is that of a folder with the same model in another format."""
    return name.lower() in WEIGHT_FOLDERS or name.lower().endswith(_WEIGHT_FOLDER_SUFFIXES)


def is_weights_path(path: str) -> bool:
    """Whether a path has the name of a file of weights, or is in a folder of weights, whatever its name.

    Args:
        path: Path relative to the model's directory.
    """
    *folders, name = path.split("/")
    return is_weights_name(name) or any(map(is_weights_folder, folders))
