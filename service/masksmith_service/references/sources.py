"""Reads the headers of the files in roots that a job document names."""

from __future__ import annotations

from collections.abc import Callable

from masksmith_service.auth.principal import Principal
from masksmith_service.resources import State
from masksmith_state.jobs.shards import Source
from masksmith_wire.documents import MasksRequest
from masksmith_wire.headers import Header

from .access import find_readable
from .models import ModelReader


def read_references(
    state: State, principal: Principal, document: MasksRequest, reserve_memory: Callable[[int], None]
) -> tuple[dict[str, Source], dict[str, Header]]:
    """Read state and header of every file in a root that a document names, by reference.

    Args:
        state: Resources of the application.
        principal: Who sent the document.
        document: The document.
        reserve_memory: Reserves a number of bytes of memory for the request.

    Raises:
        RequestError: If a reference is in no root, the principal has no right to it, there is no such file, or it is
            not a safetensors file.
    """
    reader, sources, headers = ModelReader(state, reserve_memory), dict[str, Source](), dict[str, Header]()
    parts = (part for tensor in document.tensors for part in (tensor, tensor.statistic, tensor.gram))
    references = (part.reference for part in parts if part is not None and part.reference is not None)
    places = {reference: find_readable(state.roots, principal, reference) for reference in dict.fromkeys(references)}
    for reference, place in places.items():
        file, headers[reference] = reader.header(place)
        sources[reference] = Source(location=place.location, version=file.version)
    return sources, headers
