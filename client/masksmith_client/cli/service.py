"""What commands that use a service share: the client, a note about waiting jobs, and the message after Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from masksmith_client._client import Client
from masksmith_client._jobs import Job
from masksmith_client.transport.retry import RetryPolicy

from .console import end_line, print_note


def interactive_client(url: str | None) -> Client:
    """Create a client with only one retry, for commands whose user waits for the output."""
    return Client(url, retry=RetryPolicy(retries=1))


def patient_client(url: str | None) -> Client:
    """Create a client that retries for minutes, for commands that wait for a job."""
    return Client(url)


def note_waiting(job: Job) -> None:
    """Print why a job waits, if no living worker can take it."""
    if job.document.waiting_for is not None:
        print_note(f"masksmith: job {job.id} waits: {job.document.waiting_for}")


@contextmanager
def interrupt_hint(job: Job) -> Iterator[None]:
    """After Ctrl-C, print that the job continues, and how to watch or cancel it."""
    try:
        yield
    except KeyboardInterrupt:
        end_line()
        print_note(f"job {job.id} continues: 'masksmith jobs watch {job.id}', or 'masksmith jobs cancel {job.id}'")
        raise
