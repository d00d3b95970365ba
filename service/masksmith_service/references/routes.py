"""HTTP route that lists the tensors of a model in a root."""

from __future__ import annotations

from typing import Annotated

import anyio.from_thread
from fastapi import APIRouter, Query, Request

from masksmith_service.auth.principal import PrincipalDep
from masksmith_service.resources import StateDep
from masksmith_wire.documents import Reference
from masksmith_wire.references import ModelListing

from .access import find_readable
from .models import ModelReader

router = APIRouter(prefix="/v1/references", tags=["references"])


@router.get("")
def list_reference(
    location: Annotated[Reference, Query()], request: Request, state: StateDep, principal: PrincipalDep
) -> ModelListing:
    """List the tensors of a safetensors file, an index or a model's directory in a root, from headers alone."""

    def reserve_memory(size: int) -> None:
        anyio.from_thread.run(request.state.reservation.add, state.capacities.memory, size)

    target = find_readable(state.roots, principal, location)
    return ModelReader(state, reserve_memory).read(target).listing(target.location)
