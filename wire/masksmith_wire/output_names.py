"""Names of files in a model's directory: which ones hold weights, and which ones masksmith adds."""

from __future__ import annotations

from pathlib import PurePosixPath

MASKS_NAME = "masks.safetensors"
RECORD_NAME = "masksmith.json"
JOURNAL_NAME = ".masksmith-journal.jsonl"
BLOCK_REPORT_NAME = "masksmith-blocks.json"
BLOCK_PAGE_NAME = "masksmith-blocks.html"
BLOCKS_NAME = ".masksmith-blocks"
"""Folder of the blocks that are finished while a model is pruned block by block."""
OWN_FILES = frozenset({MASKS_NAME, RECORD_NAME, JOURNAL_NAME, BLOCK_REPORT_NAME, BLOCK_PAGE_NAME})
INDEX_SUFFIX = ".index.json"
PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
WEIGHT_SUFFIXES = PICKLE_SUFFIXES | {
    ".safetensors", ".gguf", ".ggml", ".h5", ".msgpack", ".onnx", ".onnx_data", ".ot", ".tflite", ".mlmodel", ".npz",
}  # fmt: skip
WEIGHT_FOLDERS = frozenset({"original", "consolidated", "onnx", "openvino", "coreml", "gguf"})


def names_weights(name: str) -> bool:
    """Whether a file is of weights, or an index of such files, by its name."""
    stem = name.removesuffix(INDEX_SUFFIX) if name.endswith(INDEX_SUFFIX) else name
    return PurePosixPath(stem).suffix.lower() in WEIGHT_SUFFIXES or ".onnx" in name


def holds_weights(path: str) -> bool:
    """Whether a file of a model's directory holds weights, by its path: in another format, or in a folder of such."""
    *folders, name = path.split("/")
    return names_weights(name) or any(folder.lower() in WEIGHT_FOLDERS for folder in folders)
