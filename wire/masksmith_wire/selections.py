"""Documents of selections: the tensors of files that a job would mask, found from the files' headers alone."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, FailFast, Field

from .documents import Skipped
from .payload_limits import StrictModel

HeaderText = Annotated[str, Field(min_length=0)]
"""Text of a header. Pydantic refuses text that is no Unicode, such as half a surrogate pair, only with a constraint."""


class SelectionRequest(StrictModel):
    """The JSON headers of safetensors files, each as text, without the eight bytes of its length.

    Attributes:
        headers: The headers of a checkpoint's files, as they would be uploaded.
        calibration: The header of the calibration file, if the job has one.
    """

    headers: Annotated[list[HeaderText], Field(min_length=1, max_length=1001), FailFast()]
    calibration: HeaderText | None = None


class SelectedTensors(BaseModel):
    """The tensors that a job would mask, and why it would leave the others dense.

    Attributes:
        masked: Names of the tensors that it would mask, in the order of the files.
        entries: Number of entries of all these tensors together.
        skipped: The other tensors, with reasons.
    """

    masked: list[str]
    entries: int
    skipped: list[Skipped]
