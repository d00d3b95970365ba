"""What a mask buys: sparse kernels measured against dense ones, on this device.

    from masksmith.benchmark import benchmark
    report = benchmark("MiniLM", ["2:4", "2:16"], batches=[32])
    print(report.conclusions())

Names are loaded when first used. Declarations, planning, results and reports need the standard library only, so that
every process can read them; what measures needs torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cases import Case as Case, Layer as Layer, group as group, read_shapes as read_shapes
    from .conclusions import BreakEven as BreakEven, Estimate as Estimate, Winner as Winner, winners as winners
    from .declaration import Declaration as Declaration, Support as Support
    from .errors import BenchmarkError as BenchmarkError
    from .kernel import Kernel as Kernel, Operand as Operand, Packed as Packed
    from .machine import device_identity as device_identity
    from .method import Bench as Bench
    from .models import MODELS as MODELS
    from .planning import Request as Request, plan as plan
    from .plots import bars as bars, curves as curves, draw as draw
    from .registry import all_kernels as all_kernels, own_kernels as own_kernels
    from .report import Report as Report
    from .results import CaseResult as CaseResult, Measurement as Measurement, Timing as Timing
    from .run import benchmark as benchmark
    from .tables import Table as Table, machine_line as machine_line

_HOMES = {
    "Bench": "method",
    "BenchmarkError": "errors",
    "BreakEven": "conclusions",
    "Case": "cases",
    "CaseResult": "results",
    "Declaration": "declaration",
    "Estimate": "conclusions",
    "Kernel": "kernel",
    "Layer": "cases",
    "MODELS": "models",
    "Measurement": "results",
    "Operand": "kernel",
    "Packed": "kernel",
    "Report": "report",
    "Request": "planning",
    "Support": "declaration",
    "Table": "tables",
    "Timing": "results",
    "Winner": "conclusions",
    "all_kernels": "registry",
    "bars": "plots",
    "benchmark": "run",
    "curves": "plots",
    "device_identity": "machine",
    "draw": "plots",
    "group": "cases",
    "own_kernels": "registry",
    "machine_line": "tables",
    "plan": "planning",
    "read_shapes": "cases",
    "winners": "conclusions",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'masksmith.benchmark' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
