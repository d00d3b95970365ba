"""HTTP routes of layer windows and profiles, which respond with safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from fastapi import APIRouter, Depends, Query, Response

from masksmith_service.auth.principal import PrincipalDep
from masksmith_service.errors import RequestError
from masksmith_service.jobs.access import VisibleJobIdWithParts, read_masks_job
from masksmith_service.references.access import find_readable
from masksmith_service.resources import StateDep
from masksmith_wire.errors import Code

from .reader import MaskedLayer, find_layer
from .windows import MAX_CELLS, MAX_SIDE, Window, read_profile, read_window, sampled_rows_per_cell

router = APIRouter(prefix="/v1/jobs/{job}", tags=["pictures"])
Offset = Annotated[int, Query(ge=0, lt=2**40)]
Side = Annotated[int, Query(ge=1, le=MAX_SIDE)]


def layer_of(
    job: VisibleJobIdWithParts, tensor: Annotated[str, Query(max_length=512)], state: StateDep, principal: PrincipalDep
) -> MaskedLayer:
    """Find the layer of a request.

    Raises:
        RequestError: If there is no such layer, or its weight is in a root that the principal may not read.
    """
    layer = find_layer(read_masks_job(state, job), state.records, tensor)
    source = layer.tensor.source
    return layer if source is None else replace(layer, file=find_readable(state.roots, principal, source.location))


LayerDep = Annotated[MaskedLayer, Depends(layer_of)]


@router.get("/window", response_class=Response)
def get_window(
    layer: LayerDep,
    state: StateDep,
    row: Offset = 0,
    col: Offset = 0,
    rows: Side = 256,
    cols: Side = 256,
    step: Annotated[int, Query(ge=1, le=2**20)] = 1,
) -> Response:
    """Read a rectangle of a layer with a complete mask: `rows` x `cols` cells of `step` x `step` entries each.

    The file holds F32 tensors with one value for each cell, fewer than `rows` x `cols` where the layer ends: `kept`
    (share of kept entries), `scores` (mean score) and `kept_scores` (mean score of the kept entries). In large windows
    only some rows of each cell are read; the metadata's `sampled` is their number for a whole cell.
    """
    height, width = layer.shape
    if row >= height or col >= width or rows * cols > MAX_CELLS:
        detail = f"a window must begin inside the {height}x{width} layer and have at most {MAX_CELLS} cells"
        raise RequestError(Code.INVALID_DOCUMENT, f"{detail}; got {rows}x{cols} at row {row}, column {col}")
    window = Window(row, col, rows, cols, step).clipped(layer.shape)
    return _respond(read_window(layer, state.store, window), sampled=sampled_rows_per_cell(layer, window), step=step)


@router.get("/profile", response_class=Response)
def get_profile(layer: LayerDep, state: StateDep) -> Response:
    """Count the kept entries of each row (`row_kept`) and column (`col_kept`), and sample the scores of some rows.

    The sample gives 101 `quantiles`, and histograms of kept and dropped scores: `kept_counts` and `dropped_counts`
    between neighbours of `edges`.
    """
    height, width = layer.shape
    return _respond(read_profile(layer, state.store), rows=height, cols=width)


def _respond(tensors: Mapping[str, npt.NDArray[np.generic]], **metadata: int) -> Response:
    texts = {name: str(value) for name, value in metadata.items()}
    return Response(safetensors.numpy.save(dict(tensors), texts), media_type="application/octet-stream")
