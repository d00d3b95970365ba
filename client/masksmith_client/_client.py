"""The blocking client; `_async_client` has the one for asyncio. What they do is in `operations`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self, Unpack

import httpx2

from masksmith.benchmark import Report
from masksmith.patterns import Pattern

from ._info import Info
from ._jobs import Jobs
from .operations import jobs as operations
from .results.masks import Masks
from .submission.benchmarks import BenchmarkOptions
from .submission.prepare import SubmitOptions
from .transport.driver import Driver
from .transport.http import DEFAULT_TIMEOUT_S, client_options
from .transport.retry import RetryPolicy
from .transport.settings import settings


@dataclass(frozen=True, slots=True)
class ClientConfiguration:
    """The arguments of a client: enough to make it again in another process."""

    url: str
    token: str | None = field(repr=False)
    timeout_s: float | None
    retry: RetryPolicy


class Client:
    """A connection to a masksmith service.

        with Client() as client:
            masks = client.solve(model.state_dict(), "transposable 8:16")

    Args:
        url: The service; `MASKSMITH_URL` or http://127.0.0.1:8000 unless given.
        token: The key to it; `MASKSMITH_TOKEN` unless given.
        timeout_s: Longest silence while sending or receiving; None waits forever.
        retry: How often and how patiently failed requests are sent again.
        transport: Replaces the network, for tests.

    Raises:
        InputError: If the URL is malformed.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        retry: RetryPolicy | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        service, policy = settings(url, token), retry or RetryPolicy()
        self.url = service.url
        # None if it has a transport of its own, which no other process could use.
        self.configuration: ClientConfiguration | None = None
        if transport is None:
            self.configuration = ClientConfiguration(service.url, service.token, timeout_s, policy)
        http = httpx2.Client(**client_options(service, timeout_s), transport=transport)
        self._session = Driver(service, policy, http)
        self.jobs = Jobs(self._session)

    def solve(
        self,
        weights: object,
        pattern: str | Pattern,
        *,
        progress: bool | None = None,
        timeout_s: float | None = None,
        **options: Unpack[SubmitOptions],
    ) -> Masks:
        """Upload weights, wait for their best masks, and download them.

        Weights that the service has seen before do not travel again. If the wait is interrupted the job goes on: it
        is the first in `client.jobs.list()`.

        Args:
            weights: A mapping of names to torch tensors or numpy arrays, a torch module, or a path: a `.safetensors`
                file, a sharded checkpoint's `*.index.json`, or the directory of either.
            pattern: Such as `"2:4"` or `"transposable 8:16"`: 8 **kept** of every 16; or a pattern object.
            progress: Show bars; None shows them on terminals and in notebooks.
            timeout_s: Longest wait for the job.
            options: See `SubmitOptions`.

        Raises:
            InputError: If the input cannot be used; nothing was sent then.
            JobFailedError: If not every tensor got its mask; `error.job.masks()` has the others.
            StatusError: If the service refused.
            TransportError: If it cannot be reached, or `timeout_s` is over.
        """
        job = self.jobs.submit(weights, pattern, progress=progress, **options)
        return job.wait(timeout_s, progress=progress).masks()

    def benchmark(
        self,
        model: object = None,
        patterns: str | Iterable[object] = (),
        *,
        masks_of: str | None = None,
        progress: bool | None = None,
        timeout_s: float | None = None,
        **options: Unpack[BenchmarkOptions],
    ) -> Report:
        """Measure what masks buy on the service's device, and wait for the report.

        Args:
            model: A well-known model's name such as `"MiniLM"`, shapes such as `"1536x384*6"` (out x in, 6 of them), a
                checkpoint's path, a mapping of names to tensors, or a torch module; only shapes travel.
            patterns: One pattern or several.
            masks_of: The id of a masks job, instead of both.
            progress: Show a bar; None shows one on terminals and in notebooks.
            timeout_s: Longest wait; the job goes on after it.
            options: See `BenchmarkOptions`.

        Raises:
            InputError: If the input cannot be used; nothing was sent then.
            StatusError: If the service refused, because a kernel cannot do what is asked, say.
            JobFailedError: If nothing was measured, or the job was canceled. What failed beside what was measured
                stands in the report's `failures`.
        """
        job = self.jobs.submit_benchmark(model, patterns, masks_of=masks_of, **options)
        return job.wait_for_report(timeout_s, progress=progress)

    def info(self) -> Info:
        """Ask what the service can do and whether it is ready."""
        return self._session.run(operations.info(self._session))

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
