"""`masksmith info`: whether the service is there, and what it can do."""

from __future__ import annotations

from typing import Any

import typer

from masksmith_client._client import Client
from masksmith_client.transport.retry import RetryPolicy

from .console import JsonOption, UrlOption, emit, show_table


def info(url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Show a service's state, workers, patterns and solvers."""
    # A person waits for the answer: one retry is enough.
    with Client(url, retry=RetryPolicy(retries=1)) as client:
        service = client.info()
    if as_json:
        emit(
            {
                "url": service.url,
                "ready": service.ready,
                "trouble": service.trouble,
                "workers": [worker.model_dump(mode="json") for worker in service.workers],
                "patterns": service.patterns,
                "solvers": service.solvers,
            }
        )
    else:
        print(f"{service.url}: {'ready' if service.ready else f'not ready: {service.trouble}'}")
        rows = [(w.name, w.device, str(w.slots), w.device_name, ", ".join(w.queues)) for w in service.workers]
        show_table(("worker", "device", "slots", "hardware", "queues"), rows, left=5)
        print(f"patterns: {_names(service.patterns)}")
        print(f"solvers: {_names(service.solvers)}")
    if not service.ready:
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
