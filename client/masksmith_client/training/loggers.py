"""The metrics that `Sparsifier.log_to` passes to loggers, and loggers for TensorBoard and for runs of wandb and others.

A logger is a function of metrics and step, called once for each refresh whose response was applied; the step is the
number of optimizer steps after which the response was applied. Many libraries have such a function: pass
`accelerator.log`, `mlflow.log_metrics` or a Lightning logger's `log_metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from masksmith_client._errors import InputError

from .report import RefreshRecord

PREFIX = "masksmith/"
STEP = f"{PREFIX}step"

Logger = Callable[[dict[str, float], int], object]


def metrics_of(record: RefreshRecord) -> dict[str, float]:
    """Return the metrics of a refresh by name, without those that are unknown, such as the gap of masks without bounds.

    The names are `masksmith/` and: `retained`, `flip_rate`, `sad`, `gap`, `staleness_steps`, `seconds` (`wait_s` of the
    record), `sent`, `unchanged`, `failed`, `late`. See `RefreshRecord`.
    """
    values = {
        "retained": record.retained,
        "flip_rate": record.flip_rate,
        "sad": record.sad,
        "gap": record.gap,
        "staleness_steps": record.staleness_steps,
        "seconds": record.wait_s,
        "sent": record.sent,
        "unchanged": record.unchanged,
        "failed": record.failed,
        "late": record.late,
    }
    return {f"{PREFIX}{name}": float(value) for name, value in values.items() if value is not None}


class TensorBoardLogger:
    """Writes each metric as a scalar: `sparsifier.log_to(TensorBoardLogger(SummaryWriter()))`.

    Args:
        writer: A `SummaryWriter` of torch or tensorboardX, or another object with `add_scalar(name, value, step)`.

    Raises:
        InputError: If the writer has no `add_scalar`.
    """

    def __init__(self, writer: Any) -> None:
        self._add_scalar = _method(writer, "add_scalar", "writer", "a SummaryWriter")

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Write the metrics of a step."""
        for name, value in metrics.items():
            self._add_scalar(name, value, step)


class RunLogger:
    """Logs to a run of wandb, trackio or SwanLab by `log(metrics)`: `sparsifier.log_to(RunLogger(wandb.init()))`.

    wandb drops rows whose step is lower than the step of the row before, and a training loop has its own count of
    steps. So the optimizer's step is logged as the metric `masksmith/step`; if the run has `define_metric`, this is
    the x axis of the other metrics `masksmith/...`. A loop that passes optimizer steps as `step=` itself can use
    `sparsifier.log_to(run.log)`.

    Args:
        run: The run.

    Raises:
        InputError: If the run has no `log`.
    """

    def __init__(self, run: Any) -> None:
        self._log = _method(run, "log", "run", "a run, such as the one that wandb.init() returns")
        define_metric = getattr(run, "define_metric", None)
        if callable(define_metric):
            define_metric(STEP)
            define_metric(f"{PREFIX}*", step_metric=STEP)

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Log the metrics of a step as one row."""
        self._log({**metrics, STEP: step})


def _method(target: Any, name: str, argument: str, expected: str) -> Callable[..., Any]:
    """Return a method of an object; messages name the object by `argument`, and what to pass by `expected`."""
    method: Callable[..., Any] | None = getattr(target, name, None)
    if not callable(method):
        raise InputError(f"{argument}={target!r} has no method {name}(): pass {expected}")
    return method
