"""`masksmith info`: whether the service is there, and what it can do."""

from __future__ import annotations

from typing import Any

import typer

from masksmith_client._client import Client
from masksmith_client.transport.retry import RetryPolicy

from .console import JsonOption, UrlOption, emit, show_table


def info(url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Show a service's state, workers, patterns and solvers."""
    # Somebody looks and waits: no long patience.
    with Client(url, retry=RetryPolicy(retries=1)) as client:
        found = client.info()
    if as_json:
        emit(
            {
                "url": found.url,
                "ready": found.ready,
                "trouble": found.trouble,
                "workers": [worker.model_dump(mode="json") for worker in found.workers],
                "patterns": found.patterns,
                "solvers": found.solvers,
            }
        )
    else:
        print(f"{found.url}: {'ready' if found.ready else f'not ready: {found.trouble}'}")
        rows = [(w.name, w.device, str(w.slots), w.device_name, ", ".join(w.queues)) for w in found.workers]
        show_table(("worker", "device", "slots", "hardware", "queues"), rows, left=5)
        print(f"patterns: {_names(found.patterns)}")
        print(f"solvers: {_names(found.solvers)}")
    if not found.ready:
        raise typer.Exit(1)


def _names(document: Any) -> str:
    if isinstance(document, dict):
        lists = [value for value in document.values() if isinstance(value, list)]
        document = lists[0] if lists else [document]
    return ", ".join(_name(member) for member in document)


def _name(member: Any) -> str:
    if isinstance(member, dict):
        return str(member.get("name") or member.get("form") or member)
    return str(member)
