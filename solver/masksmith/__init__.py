"""masksmith: the best sparsity mask that a pattern allows, and the proof that it is the best.

    import masksmith as ms
    solution = ms.solve(ms.magnitude(weight), "transposable 8:16")

Names are loaded when first used, so that `masksmith.patterns` costs nothing but the standard library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .patterns import (
    NM as NM,
    VNM as VNM,
    Block as Block,
    Budget as Budget,
    Channels as Channels,
    DoublePruned as DoublePruned,
    Pattern as Pattern,
    PatternError as PatternError,
    Unstructured as Unstructured,
    parse as parse,
)

if TYPE_CHECKING:
    from ._errors import (
        InfeasibleError as InfeasibleError,
        ScoresError as ScoresError,
        SolverError as SolverError,
        UpdateError as UpdateError,
        VerificationError as VerificationError,
    )
    from ._panels import Panel as Panel, PanelAnswer as PanelAnswer
    from ._solution import Solution as Solution, Status as Status
    from ._solve import solve as solve, solve_many as solve_many
    from ._verify.verify import Verdict as Verdict, verify as verify
    from ._warm_up import warm_up as warm_up
    from .allocation import Allocation as Allocation, allocate as allocate
    from .calibration import Calibration as Calibration, calibrate as calibrate
    from .measures import diversity as diversity, report as report, zero_rate as zero_rate
    from .patterns.conversion import choose_n as choose_n
    from .patterns.errors import MasksmithError as MasksmithError
    from .permutation import Permutation as Permutation, permute as permute
    from .scores import (
        magnitude as magnitude,
        pfp as pfp,
        ria as ria,
        sampling_bound as sampling_bound,
        sipp as sipp,
        sparsegpt as sparsegpt,
        taylor as taylor,
        wanda as wanda,
    )
    from .solvers.auto import Auto as Auto
    from .solvers.base import Solver as Solver
    from .solvers.enumerate import Enumerate as Enumerate
    from .solvers.exact import Exact as Exact
    from .solvers.greedy import Greedy as Greedy
    from .solvers.min_cost_flow import MinCostFlow as MinCostFlow
    from .solvers.sinkhorn import Sinkhorn as Sinkhorn
    from .solvers.top_k import TopK as TopK
    from .updates import AdmmUpdate as AdmmUpdate, Update as Update, admm as admm, reconstruct as reconstruct

__version__ = "0.1.0"

_HOMES = {
    "MasksmithError": "patterns.errors",
    "InfeasibleError": "_errors",
    "ScoresError": "_errors",
    "SolverError": "_errors",
    "UpdateError": "_errors",
    "VerificationError": "_errors",
    "magnitude": "scores",
    "pfp": "scores",
    "ria": "scores",
    "sampling_bound": "scores",
    "sipp": "scores",
    "sparsegpt": "scores",
    "taylor": "scores",
    "wanda": "scores",
    "choose_n": "patterns.conversion",
    "zero_rate": "measures",
    "report": "measures",
    "diversity": "measures",
    "Permutation": "permutation",
    "permute": "permutation",
    "Allocation": "allocation",
    "allocate": "allocation",
    "Calibration": "calibration",
    "calibrate": "calibration",
    "Panel": "_panels",
    "PanelAnswer": "_panels",
    "Solution": "_solution",
    "Status": "_solution",
    "solve": "_solve",
    "solve_many": "_solve",
    "Verdict": "_verify.verify",
    "verify": "_verify.verify",
    "warm_up": "_warm_up",
    "Auto": "solvers.auto",
    "Solver": "solvers.base",
    "Enumerate": "solvers.enumerate",
    "Exact": "solvers.exact",
    "Greedy": "solvers.greedy",
    "MinCostFlow": "solvers.min_cost_flow",
    "Sinkhorn": "solvers.sinkhorn",
    "TopK": "solvers.top_k",
    "AdmmUpdate": "updates",
    "Update": "updates",
    "admm": "updates",
    "reconstruct": "updates",
}

__all__ = [
    "NM",
    "Block",
    "Budget",
    "Channels",
    "DoublePruned",
    "Pattern",
    "PatternError",
    "Unstructured",
    "VNM",
    "parse",
    *_HOMES,
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'masksmith' has no attribute {name!r}")
    try:
        module = import_module(f".{_HOMES[name]}", __name__)
    except ModuleNotFoundError as error:
        if error.name in ("torch", "numba", "ortools", "loky"):
            raise ModuleNotFoundError(
                f"masksmith.{name} needs {error.name}: pip install 'masksmith[solver]'", name=error.name
            ) from None
        raise
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
