"""Recorders in the place of `torch.cuda`, for tests on machines without a GPU."""

from collections.abc import Callable
from contextlib import contextmanager

import torch


def mock_current_device(monkeypatch) -> Callable[[], str | None]:
    """Replace `torch.cuda.device`; return a function that returns the device of the innermost `with`, or None."""
    entered: list[str] = []

    @contextmanager
    def device(name):
        entered.append(str(name))
        try:
            yield
        finally:
            entered.pop()

    monkeypatch.setattr(torch.cuda, "device", device)
    return lambda: entered[-1] if entered else None
