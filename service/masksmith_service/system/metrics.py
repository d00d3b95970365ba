"""What Prometheus reads."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from masksmith_service.auth.principal import AdminDep
from masksmith_service.resources import StateDep

from .gauges import Gauges

router = APIRouter(tags=["discovery"])


@router.get("/metrics", response_class=Response)
def metrics(request: Request, state: StateDep, caller: AdminDep) -> Response:
    """Give the installation's gauges, for an admin: the same from every service, and past restarts."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Gauges(state.records))
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry), headers={"Content-Type": media_type})
