"""masksmith's client: weights go up, proved-optimal masks come back.

from masksmith_client import Client

with Client() as client:
    masks = client.solve(model.state_dict(), "transposable 8:16")

Names are loaded when first used, so that the command line starts at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from masksmith_wire.documents import JobState as JobState, TensorReport as TensorReport

    from ._async_client import AsyncClient as AsyncClient
    from ._async_jobs import AsyncJob as AsyncJob
    from ._client import Client as Client
    from ._errors import (
        BadRequest as BadRequest,
        ClientError as ClientError,
        Conflict as Conflict,
        ConnectError as ConnectError,
        InputError as InputError,
        JobFailedError as JobFailedError,
        NotFound as NotFound,
        RateLimited as RateLimited,
        ServerError as ServerError,
        StatusError as StatusError,
        TimeoutError as TimeoutError,
        TransportError as TransportError,
        Unauthorized as Unauthorized,
        WireError as WireError,
    )
    from ._info import Info as Info
    from ._jobs import Job as Job
    from .results.masks import Masks as Masks
    from .submission.benchmarks import BenchmarkOptions as BenchmarkOptions
    from .submission.prepare import SubmitOptions as SubmitOptions
    from .transport.events import Event as Event
    from .transport.retry import RetryPolicy as RetryPolicy

_HOMES = {
    "JobState": "masksmith_wire.documents",
    "TensorReport": "masksmith_wire.documents",
    "AsyncClient": "masksmith_client._async_client",
    "AsyncJob": "masksmith_client._async_jobs",
    "Client": "masksmith_client._client",
    "BadRequest": "masksmith_client._errors",
    "ClientError": "masksmith_client._errors",
    "Conflict": "masksmith_client._errors",
    "ConnectError": "masksmith_client._errors",
    "InputError": "masksmith_client._errors",
    "JobFailedError": "masksmith_client._errors",
    "NotFound": "masksmith_client._errors",
    "RateLimited": "masksmith_client._errors",
    "ServerError": "masksmith_client._errors",
    "StatusError": "masksmith_client._errors",
    "TimeoutError": "masksmith_client._errors",
    "TransportError": "masksmith_client._errors",
    "Unauthorized": "masksmith_client._errors",
    "WireError": "masksmith_client._errors",
    "Info": "masksmith_client._info",
    "Job": "masksmith_client._jobs",
    "Masks": "masksmith_client.results.masks",
    "BenchmarkOptions": "masksmith_client.submission.benchmarks",
    "SubmitOptions": "masksmith_client.submission.prepare",
    "Event": "masksmith_client.transport.events",
    "RetryPolicy": "masksmith_client.transport.retry",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'masksmith_client' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
