"""The FastAPI application: its middleware, routes, lifespan, and the sweeper in the background."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from threading import Event, current_thread, main_thread
from types import FrameType

import anyio.to_thread
from fastapi import Depends, FastAPI
from fastapi.telemetry import TelemetryConfig
from opentelemetry.trace import TracerProvider
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from masksmith_state.jobs.sweeper import Sweeper
from masksmith_state.telemetry import tracing

from . import problems
from .auth import keys, sessions
from .auth.middleware import AuthenticationMiddleware
from .benchmarks import routes as benchmarks
from .bounds.middleware import CapacityMiddleware
from .jobs import routes as jobs
from .layers import routes as layers
from .middleware.access_log import AccessLogMiddleware
from .middleware.json_bodies import JsonBodyMiddleware
from .middleware.path_characters import PathCharactersMiddleware
from .middleware.path_prefix import PathPrefixMiddleware
from .middleware.security_headers import SecurityHeadersMiddleware
from .middleware.unread_bodies import UnreadBodyMiddleware
from .pages import routes as pages
from .query import require_single_values
from .references import routes as references
from .resources import State, connect
from .settings import Settings
from .system import discovery, metrics
from .system.openapi import complete_openapi
from .uploads import routes as uploads


def create_app(settings: Settings | None = None, stop_event: Event | None = None) -> FastAPI:
    """Make the application.

    Args:
        settings: By default read from the environment.
        stop_event: Event that the lifespan sets at a stop signal, so that event streams and waiting requests end; by
            default a new one.
    """
    settings = settings or Settings()
    tracer_provider = (
        tracing.make_tracer_provider(settings.otlp_url, "masksmith-service") if settings.otlp_url else None
    )
    stop_telemetry = None if tracer_provider is None else tracer_provider.shutdown
    app = FastAPI(
        title="masksmith",
        summary="Proved-optimal sparsity masks.",
        version="1",
        lifespan=_lifespan(settings, stop_event or Event(), stop_telemetry),
        dependencies=[Depends(require_single_values)],
        # A redirect to the path without a slash at its end would lack the prefix of a proxy.
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        telemetry=_telemetry_settings(tracer_provider),
    )
    _add_middleware(app, settings)
    problems.install(app)
    for module in (uploads, references, jobs, benchmarks, layers, sessions, keys, discovery, metrics, pages):
        app.include_router(module.router)
    app.mount("/static", pages.static_files())
    complete_openapi(app)
    return app


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """Add the middleware, the innermost first."""
    app.add_middleware(JsonBodyMiddleware, settings=settings)
    app.add_middleware(CapacityMiddleware, settings=settings)
    app.add_middleware(AuthenticationMiddleware, settings=settings)
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=settings.trusted_proxies)
    # Runs before the middleware above, which compares paths and would not recognise a path with control characters.
    app.add_middleware(PathCharactersMiddleware)
    # Runs before all middleware above, so that their responses have a request id, too.
    app.add_middleware(AccessLogMiddleware)
    app.add_middleware(UnreadBodyMiddleware)
    app.add_middleware(PathPrefixMiddleware, prefix=settings.root_path, trusted_proxies=settings.trusted_proxies)
    app.add_middleware(SecurityHeadersMiddleware)


def _lifespan(
    settings: Settings, stop_event: Event, stop_telemetry: Callable[[], object] | None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Return the lifespan of the application: its connections, its signal handlers and the sweeper."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state = connect(settings, stop_event)
        app.state.masksmith = state
        try:
            with _stop_event_on_signals(stop_event):
                await anyio.to_thread.run_sync(state.housekeeping.check)
                async with _sweeper_running(state):
                    yield
        finally:
            await state.async_redis.aclose()
            await state.events_redis.aclose()
            state.records.redis.close()
            if stop_telemetry is not None:
                await anyio.to_thread.run_sync(stop_telemetry)

    return lifespan


@contextmanager
def _stop_event_on_signals(stop_event: Event) -> Iterator[None]:
    """Set the event as soon as a stop signal arrives, before the server waits for all streams to end."""
    if current_thread() is not main_thread():
        # Python sets signal handlers in the main thread only.
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop_event.set()
        handler = handlers[signal.Signals(number)]
        assert callable(handler)
        handler(number, frame)

    replaced_signals = [number for number, handler in handlers.items() if callable(handler)]
    for number in replaced_signals:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number in replaced_signals:
            signal.signal(number, handlers[number])


@asynccontextmanager
async def _sweeper_running(state: State) -> AsyncIterator[None]:
    sweeper = Sweeper(state.records, state.producer.send_messages, state.settings.sweep_s, state.housekeeping.run)
    sweeper.start()
    try:
        yield
    finally:
        await anyio.to_thread.run_sync(sweeper.stop)


def _telemetry_settings(provider: TracerProvider | None) -> TelemetryConfig:
    """Return telemetry settings of FastAPI: spans of requests, if there is a provider; no metrics, no logs."""
    return {
        "tracer_provider": provider,
        "tracing": provider is not None,
        "metrics": False,
        "logs": False,
        "operation_spans": False,
        "auto_configure": False,
    }
