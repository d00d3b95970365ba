"""Documents that list the tensors of a safetensors file or a model in a root; only headers are read for them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class ListedTensor(BaseModel):
    """A tensor of a model; `file` is the reference of its file, `format` the member `format` of the file's metadata."""

    name: str
    dtype: str
    shape: list[int]
    file: str
    format: str = ""


class ModelListing(BaseModel):
    """A safetensors file, or a model's directory.

    Attributes:
        location: Reference of the file or directory.
        tensors: Its tensors, in the order of the index or the header.
        config: The model's `config.json`, if it has one.
    """

    location: str
    tensors: list[ListedTensor]
    config: dict[str, Any] | None = None
