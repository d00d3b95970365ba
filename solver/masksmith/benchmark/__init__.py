"""Benchmarks of sparse kernels against dense ones, on this device.

    from masksmith.benchmark import benchmark
    report = benchmark("MiniLM", ["2:4", "2:16"], batches=[32])
    print(report.conclusions())

Names are loaded at first use. Declarations, planning, results and reports need the standard library only, so that every
process can import them; measuring needs torch, drawing matplotlib.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from masksmith._lazy import attach

if TYPE_CHECKING:
    from .cases import Case as Case, Layer as Layer, group as group, read_shapes as read_shapes
    from .conclusions import BreakEven as BreakEven, Estimate as Estimate, Winner as Winner, winners as winners
    from .declaration import Declaration as Declaration, Support as Support
    from .errors import BenchmarkError as BenchmarkError
    from .kernel import Kernel as Kernel, Operand as Operand, Packed as Packed, obstacle_of as obstacle_of
    from .machine import device_identity as device_identity
    from .method import Bench as Bench
    from .models import MODELS as MODELS
    from .planning import Request as Request, plan as plan
    from .plots import bars as bars, curve_bands as curve_bands, curves as curves, draw as draw
    from .registry import all_kernels as all_kernels, own_kernels as own_kernels
    from .report import Report as Report
    from .results import CaseResult as CaseResult, Gain as Gain, Measurement as Measurement, Timing as Timing
    from .run import benchmark as benchmark
    from .tables import Table as Table, machine_line as machine_line

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "method": ("Bench",),
        "errors": ("BenchmarkError",),
        "conclusions": ("BreakEven", "Estimate", "Winner", "winners"),
        "cases": ("Case", "Layer", "group", "read_shapes"),
        "results": ("CaseResult", "Gain", "Measurement", "Timing"),
        "declaration": ("Declaration", "Support"),
        "kernel": ("Kernel", "Operand", "Packed", "obstacle_of"),
        "models": ("MODELS",),
        "report": ("Report",),
        "planning": ("Request", "plan"),
        "tables": ("Table", "machine_line"),
        "registry": ("all_kernels", "own_kernels"),
        "plots": ("bars", "curve_bands", "curves", "draw"),
        "run": ("benchmark",),
        "machine": ("device_identity",),
    },
    extras=dict.fromkeys(("torch", "numba", "scipy"), "bench"),
)
