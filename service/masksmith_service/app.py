"""The application: routes, errors, and what runs beside the requests."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from threading import Event, current_thread, main_thread
from types import FrameType

import anyio.to_thread
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from opentelemetry.trace import TracerProvider

from masksmith_state.jobs.sweeper import Sweeper
from masksmith_state.telemetry import tracing

from . import problems
from .auth import keys, sessions
from .auth.middleware import Gate
from .benchmarks import routes as benchmarks
from .jobs import routes as jobs
from .layers import routes as layers
from .middleware.access_log import AccessLog
from .middleware.json_bodies import JsonBodies
from .middleware.unread_bodies import UnreadBodies
from .pages import routes as pages
from .resources import State, connect
from .settings import Settings
from .system import discovery, metrics
from .system.openapi import describe
from .uploads import routes as uploads


def create_app(settings: Settings | None = None, closing: Event | None = None) -> FastAPI:
    """Make the service.

    Args:
        settings: Read from the environment unless given.
        closing: Set when the process is to end, so that streams which could last end too.
    """
    settings = settings or Settings()
    closing = closing or Event()
    telemetry = tracing.make_tracer_provider(settings.otlp_url, "masksmith-service") if settings.otlp_url else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state = connect(settings, closing)
        app.state.masksmith = state
        try:
            with _noticing_signals(closing):
                async with _swept(state):
                    yield
        finally:
            await state.events.aclose()
            state.records.redis.close()
            if telemetry is not None:
                await anyio.to_thread.run_sync(telemetry.shutdown)

    app = FastAPI(
        title="masksmith",
        summary="Proved-optimal sparsity masks.",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        telemetry=_telemetry(telemetry),
    )
    app.add_middleware(JsonBodies, settings=settings)
    app.add_middleware(Gate, settings=settings)
    # Outside of the others: what they refuse has an id too.
    app.add_middleware(AccessLog)
    app.add_middleware(UnreadBodies)
    problems.install(app)
    for module in (uploads, jobs, benchmarks, layers, sessions, keys, discovery, metrics, pages):
        app.include_router(module.router)
    app.mount("/static", pages.statics())
    describe(app)
    return app


@contextmanager
def _noticing_signals(closing: Event) -> Iterator[None]:
    """Set the event as soon as a signal comes: the server behind it first waits for all streams to end."""
    if current_thread() is not main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def notice(number: int, frame: FrameType | None) -> None:
        closing.set()
        handler = handlers[signal.Signals(number)]
        assert callable(handler)
        handler(number, frame)

    ours = [number for number, handler in handlers.items() if callable(handler)]
    for number in ours:
        signal.signal(number, notice)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, handlers[number])


@asynccontextmanager
async def _swept(state: State) -> AsyncIterator[None]:
    """Clear what an earlier service left, and look for stranded work meanwhile."""
    await anyio.to_thread.run_sync(state.store.clear_leftovers)
    sweeper = Sweeper(state.records, state.queue.enqueue, state.settings.sweep_s, state.retention.sweep_if_claimed)
    sweeper.start()
    try:
        yield
    finally:
        await anyio.to_thread.run_sync(sweeper.stop)


def _telemetry(provider: TracerProvider | None) -> TelemetryConfig:
    """Spans of requests, if a collector is named; metrics and logs go their own ways."""
    return {
        "tracer_provider": provider,
        "tracing": provider is not None,
        "metrics": False,
        "logs": False,
        "operation_spans": False,
        "auto_configure": False,
    }
