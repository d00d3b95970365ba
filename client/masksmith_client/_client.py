"""The blocking client; `_async_client` has the one for asyncio. Both run the coroutines in `operations`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, Unpack

import httpx2

from masksmith.benchmark import Report
from masksmith.patterns import Pattern, PatternsByTensor

from ._errors import InputError
from ._info import Info
from ._jobs import Jobs
from ._progress import ShowProgress
from .checkpoints.prune_options import PruneOptions
from .operations import jobs as operations
from .results.masks import Masks
from .submission.benchmarks import BenchmarkOptions
from .submission.options import SubmitOptions
from .transport.blocking_session import BlockingSession
from .transport.http import DEFAULT_TIMEOUT_S, client_options, environment_errors_as_input_errors
from .transport.retry import RetryPolicy
from .transport.settings import read_settings


@dataclass(frozen=True, slots=True)
class ClientConfiguration:
    """The arguments of a client without a custom transport; another process can create the same client from them."""

    url: str = field(repr=False)
    token: str | None = field(repr=False)
    timeout_s: float | None
    retry: RetryPolicy


class Client:
    """A connection to a masksmith service.

        with Client() as client:
            masks = client.solve(model.state_dict(), "transposable 8:16")

    Args:
        url: The service's URL; default `MASKSMITH_URL` or http://127.0.0.1:8000.
        token: The token of an API key; default `MASKSMITH_TOKEN`.
        timeout_s: Seconds that each read and each write of a connection may take. The head of a response, with all
            interim responses (1xx) before it, may take `timeout_s` from its first bytes. The body of a response may
            take `timeout_s`, and one second more for each 10,000 bytes of JSON or each 1,000 bytes of a download. None
            waits forever for all of these. Connecting may take at most 5 s, always. A whole upload has no limit; an
            event stream ends after 30 s of silence.
        retry: How often, and after which pauses, failed requests are retried.
        transport: A custom httpx2 transport, for tests.

    Raises:
        InputError: If the URL is malformed or has a user name or password beside a token, or the environment's proxy
            cannot be used.
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
        settings, policy = read_settings(url, token), retry or RetryPolicy()
        self.url = settings.url
        # None with a custom transport, which cannot be sent to another process.
        self.configuration: ClientConfiguration | None = None
        if transport is None:
            self.configuration = ClientConfiguration(settings.url_with_credentials, settings.token, timeout_s, policy)
        with environment_errors_as_input_errors():
            http = httpx2.Client(**client_options(settings, timeout_s), transport=transport)
        self._session = BlockingSession(settings, policy, http)
        self.jobs = Jobs(self._session)

    def solve(
        self,
        weights: object,
        pattern: PatternsByTensor,
        *,
        progress: ShowProgress = None,
        timeout_s: float | None = None,
        **options: Unpack[SubmitOptions],
    ) -> Masks:
        """Upload weights, wait until the service has solved their masks, and download the masks.

        Weights that the service already has are not uploaded. If the wait is interrupted, the job
        continues; `client.jobs.list()` finds it again.

        Args:
            weights: A mapping of names to torch tensors or numpy arrays, a torch module, or a path: a `.safetensors`
                file, a sharded checkpoint's `*.index.json`, or the directory of either.
            pattern: A pattern object or a text, such as `"2:4"` or `"transposable 8:16"` (8 **kept** of every 16). Or
                several patterns, each with a selector of its weights, such as `["2:4", "mlp=transposable 8:16"]` or
                `{"*": "2:4", "mlp": "transposable 8:16"}`. A selector is tried as the full name of a weight, then as a
                glob, then as a part of a name between dots.
            progress: Show progress bars; None shows them on terminals and in notebooks, and
                `"lines"` also prints lines elsewhere.
            timeout_s: Timeout of the wait for the job, in seconds; None waits as long as the job takes.
            options: See `SubmitOptions`.

        Raises:
            InputError: If an argument is invalid; nothing was sent.
            JobFailedError: If a tensor could not be masked, or the job was canceled; `error.job.masks()` returns the
                masks of the other tensors.
            StatusError: If the service refused a request.
            TransportError: If the service cannot be reached, or the job takes longer than `timeout_s`.
        """
        job = self.jobs.submit(weights, pattern, progress=progress, **options)
        return job.wait(timeout_s, progress=progress).masks()

    def prune(
        self,
        model: str | os.PathLike[str],
        output: str | os.PathLike[str],
        pattern: PatternsByTensor,
        *,
        progress: ShowProgress = None,
        **options: Unpack[PruneOptions],
    ) -> dict[str, Any]:
        """Write a pruned copy of a checkpoint, which `from_pretrained` loads; the service solves its masks.

        After an interruption, the same call continues where the first one stopped. With asyncio, call this method by
        `asyncio.to_thread`.

        Args:
            model: A directory as `save_pretrained` writes it, the index of a sharded checkpoint, or a `.safetensors`
                file. With `by_reference`, or as `s3://...`, a location in a root of the service.
            output: A new or empty directory, or that of an interrupted call. With `by_reference`, or as `s3://...`, it
                is in a root of the service.
            pattern: See `solve`. Tensors without a pattern stay dense.
            progress: Show progress bars; None shows them on terminals and in notebooks, and
                `"lines"` also prints lines elsewhere.
            options: See `PruneOptions`.

        Returns:
            The record, as in `masksmith.json`: totals, and for each tensor its layout, its pattern and its certificate,
            or the reason why it stays dense.

        Raises:
            InputError: If an argument is invalid, the checkpoint is quantised in a format that is not read, or the
                output contains other files.
            JobFailedError: If a tensor could not be masked, a job was canceled, or a worker could not write a file.
            OSError: If this process cannot write a file.
            StatusError: If the service refused a request.
            TransportError: If the service cannot be reached.
        """
        from .checkpoints.by_reference import is_by_reference, prune_by_reference
        from .checkpoints.remote import prune_by_service

        if is_by_reference(model, output, options):
            return prune_by_reference(self.jobs, str(model), str(output), pattern, progress, options)
        if options.get("previous") is not None:
            raise InputError(
                "previous works only with by_reference or s3://...: the service reads the previous masks, in its roots"
            )
        return prune_by_service(self.jobs, Path(model), Path(output), pattern, progress, options)

    def benchmark(
        self,
        model: object = None,
        patterns: str | Pattern | Iterable[object] = (),
        *,
        masks_of: str | None = None,
        progress: ShowProgress = None,
        timeout_s: float | None = None,
        **options: Unpack[BenchmarkOptions],
    ) -> Report:
        """Measure the speed-up of masks on the service's device, and wait for the report.

        Args:
            model: A well-known model's name such as `"MiniLM"`, shapes such as `"1536x384*6"` (out x in, 6 of them), a
                checkpoint's path, a mapping of names to tensors, or a torch module; only shapes are sent.
            patterns: One pattern or several.
            masks_of: The id of a masks job, instead of model and patterns.
            progress: Show a progress bar; None shows it on terminals and in notebooks, and
                `"lines"` also prints lines elsewhere.
            timeout_s: Timeout of the wait, in seconds; the job continues after it. None waits as long as the job takes.
            options: See `BenchmarkOptions`.

        Raises:
            InputError: If an argument is invalid; nothing was sent.
            StatusError: If the service refused, for example because a kernel does not support the pattern.
            JobFailedError: If nothing was measured, or the job was canceled. If only some cases failed, no error is
                raised, and the report lists these cases in `failures`.
            TransportError: If the service cannot be reached, or the job takes longer than `timeout_s`.
        """
        job = self.jobs.submit_benchmark(model, patterns, masks_of=masks_of, **options)
        return job.wait_for_report(timeout_s, progress=progress)

    def info(self) -> Info:
        """Return the service's readiness, workers, patterns and solvers."""
        return self._session.run(operations.info(self._session))

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
