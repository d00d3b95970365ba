"""Documents that list the tensors of a safetensors file or a model in a root, from headers alone."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class ListedTensor(BaseModel):
    """A tensor of a model; `file` is the reference of its file, and `format` that of the file's metadata."""

    name: str
    dtype: str
    shape: list[int]
    file: str
    format: str = ""


class ModelListing(BaseModel):
    """A safetensors file, or a model's directory.

    Attributes:
        location: Its reference.
        tensors: Its tensors, in the order of files and names in the index.
        config: The model's `config.json`, if it has one.
    """

    location: str
    tensors: list[ListedTensor]
    config: dict[str, Any] | None = None
