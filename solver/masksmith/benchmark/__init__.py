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
    from ._answers import BreakEven as BreakEven, Estimate as Estimate, Winner as Winner, winners as winners
    from ._benchmark import benchmark as benchmark
    from ._cases import Case as Case, Layer as Layer, group as group, read_shapes as read_shapes
    from ._declaration import Declaration as Declaration, Support as Support
    from ._errors import BenchmarkError as BenchmarkError
    from ._kernel import Kernel as Kernel, Operand as Operand, Packed as Packed
    from ._machine import device_identity as device_identity
    from ._method import Bench as Bench
    from ._models import MODELS as MODELS
    from ._planning import Request as Request, plan as plan
    from ._plots import bars as bars, curves as curves, draw as draw
    from ._registry import all_kernels as all_kernels, own_kernels as own_kernels
    from ._report import Report as Report
    from ._results import CaseResult as CaseResult, Measurement as Measurement, Timing as Timing
    from ._tables import Table as Table, machine_line as machine_line

_HOMES = {
    "Bench": "_method",
    "BenchmarkError": "_errors",
    "BreakEven": "_answers",
    "Case": "_cases",
    "CaseResult": "_results",
    "Declaration": "_declaration",
    "Estimate": "_answers",
    "Kernel": "_kernel",
    "Layer": "_cases",
    "MODELS": "_models",
    "Measurement": "_results",
    "Operand": "_kernel",
    "Packed": "_kernel",
    "Report": "_report",
    "Request": "_planning",
    "Support": "_declaration",
    "Table": "_tables",
    "Timing": "_results",
    "Winner": "_answers",
    "all_kernels": "_registry",
    "bars": "_plots",
    "benchmark": "_benchmark",
    "curves": "_plots",
    "device_identity": "_machine",
    "draw": "_plots",
    "group": "_cases",
    "own_kernels": "_registry",
    "machine_line": "_tables",
    "plan": "_planning",
    "read_shapes": "_cases",
    "winners": "_answers",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'masksmith.benchmark' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
