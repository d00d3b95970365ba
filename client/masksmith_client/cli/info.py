"""`masksmith info`: show a service's state, workers, patterns and solvers; exit code 1 unless it is ready."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import typer

from .console import JsonOption, UrlOption, print_json, print_line, show_table


def info(url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Show a service's state, workers, patterns and solvers."""
    # Imported here, so that the help of the command does not import the client.
    from .service import interactive_client

    with interactive_client(url) as client:
        service = client.info()
    if as_json:
        print_json(asdict(service) | {"workers": [worker.model_dump(mode="json") for worker in service.workers]})
    else:
        print_line(f"{service.url}: {'ready' if service.ready else f'not ready: {service.trouble}'}")
        rows = [(w.name, w.device, str(w.slots), w.device_name, ", ".join(w.queues)) for w in service.workers]
        show_table(("worker", "device", "slots", "hardware", "queues"), rows, left_aligned=5)
        print_line(f"patterns: {_names(service.patterns)}")
        print_line(f"solvers: {_names(service.solvers)}")
    if not service.ready:
        raise typer.Exit(1)


def _names(document: Any) -> str:
    """Return the names of the objects in a list, or in the first list of a dict; the dict's name if it has no list."""
    if isinstance(document, dict):
        lists = [value for value in document.values() if isinstance(value, list)]
        document = lists[0] if lists else [document]
    return ", ".join(_name(member) for member in document)


def _name(member: Any) -> str:
    if isinstance(member, dict):
        return str(member.get("name") or member.get("form") or member)
    return str(member)
