"""What commands that use a service share: two kinds of clients, a note on waiting jobs, a message after Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from masksmith_client._client import Client
from masksmith_client._jobs import Job
from masksmith_client.transport.retry import RetryPolicy

from .console import end_line, print_note


def interactive_client(url: str | None) -> Client:
    """Create a client with `retries=1`, for commands that print at once what the service answers."""
    return Client(url, retry=RetryPolicy(retries=1))


def patient_client(url: str | None) -> Client:
    """Create a client with the default retries, for commands that wait for a job."""
    return Client(url)


def note_waiting(job: Job) -> None:
    """Print which workers a job waits for, if no living worker can take its shards."""
    if job.document.waiting_for is not None:
        print_note(f"masksmith: job {job.id} waits: {job.document.waiting_for}")


@contextmanager
def interrupt_hint(job: Job) -> Iterator[None]:
    """After Ctrl-C in the block, print that the job continues, and how to watch or cancel it.

    Raises:
        KeyboardInterrupt: After the message.
    """
    try:
        yield
    except KeyboardInterrupt:
        end_line()
        print_note(f"job {job.id} continues: 'masksmith jobs watch {job.id}', or 'masksmith jobs cancel {job.id}'")
        raise
