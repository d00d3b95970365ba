"""HTTP route of the Prometheus metrics."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from masksmith_service.auth.principal import AdminDep
from masksmith_service.resources import StateDep

from .collector import MetricsCollector

router = APIRouter(tags=["discovery"])


@router.get("/metrics", response_class=Response)
def metrics(request: Request, state: StateDep, principal: AdminDep) -> Response:
    """Return the installation's metrics, for an admin; they are the same in every service, and survive restarts."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MetricsCollector(state.records, state.store, state.housekeeping.broker))
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry), headers={"Content-Type": media_type})
