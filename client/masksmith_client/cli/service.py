"""What commands that talk to a service share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from masksmith_client._client import Client
from masksmith_client._jobs import Job
from masksmith_client.transport.retry import RetryPolicy

from .console import note


def impatient_client(url: str | None) -> Client:
    """Make a client for a person who waits for the answer: one retry is enough."""
    return Client(url, retry=RetryPolicy(retries=1))


@contextmanager
def interruptible(job: Job) -> Iterator[None]:
    """Say after Ctrl-C that the job goes on, and how it is followed or stopped."""
    try:
        yield
    except KeyboardInterrupt:
        note(f"\njob {job.id} goes on: 'masksmith jobs watch {job.id}', or 'masksmith jobs cancel {job.id}'")
        raise
