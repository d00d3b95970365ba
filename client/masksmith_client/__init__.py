"""Client of a masksmith service: upload weights, download masks with proofs of how good they are.

    from masksmith_client import Client

    with Client() as client:
        masks = client.solve(model.state_dict(), "transposable 8:16")

Names are imported when first used, so that the command line starts quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from masksmith._lazy import attach

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
    from ._version import __version__ as __version__
    from .checkpoints.prune_options import PruneOptions as PruneOptions
    from .results.masks import Masks as Masks
    from .submission.benchmarks import BenchmarkOptions as BenchmarkOptions
    from .submission.options import SubmitOptions as SubmitOptions
    from .transport.events import Event as Event
    from .transport.retry import RetryPolicy as RetryPolicy

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "_async_client": ("AsyncClient",),
        "_async_jobs": ("AsyncJob",),
        "_client": ("Client",),
        "_errors": (
            "BadRequest",
            "ClientError",
            "Conflict",
            "ConnectError",
            "InputError",
            "JobFailedError",
            "NotFound",
            "RateLimited",
            "ServerError",
            "StatusError",
            "TimeoutError",
            "TransportError",
            "Unauthorized",
            "WireError",
        ),
        "_info": ("Info",),
        "_job_view": ("JobState", "TensorReport"),
        "_jobs": ("Job",),
        "_version": ("__version__",),
        "checkpoints.prune_options": ("PruneOptions",),
        "results.masks": ("Masks",),
        "submission.benchmarks": ("BenchmarkOptions",),
        "submission.options": ("SubmitOptions",),
        "transport.events": ("Event",),
        "transport.retry": ("RetryPolicy",),
    },
)
