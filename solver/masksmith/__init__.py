"""masksmith: sparsity masks that keep the largest score that a pattern allows, with a proof of optimality.

    import masksmith as ms
    solution = ms.solve(ms.magnitude(weight), "transposable 8:16")

Names that are not from `masksmith.patterns` are loaded at first use, so that importing `masksmith.patterns` imports
only the standard library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._lazy import EXTRAS, attach
from .patterns import (
    NM as NM,
    VNM as VNM,
    Block as Block,
    Budget as Budget,
    Channels as Channels,
    DoublePruned as DoublePruned,
    Hybrid as Hybrid,
    Pattern as Pattern,
    PatternError as PatternError,
    Unstructured as Unstructured,
    parse as parse,
)

if TYPE_CHECKING:
    from ._errors import (
        InfeasibleError as InfeasibleError,
        MissingExtraError as MissingExtraError,
        PruningError as PruningError,
        ScoresError as ScoresError,
        SolverError as SolverError,
        UpdateError as UpdateError,
        VerificationError as VerificationError,
        WeightError as WeightError,
    )
    from ._panels import Panel as Panel, PanelAnswer as PanelAnswer
    from ._solution import Solution as Solution, Status as Status
    from ._solve import solve as solve, solve_many as solve_many
    from ._verify.verify import Verdict as Verdict, verify as verify
    from ._warm_up import warm_up as warm_up
    from .allocation import Allocation as Allocation, allocate as allocate
    from .calibration import Calibration as Calibration, calibrate as calibrate
    from .measures import diversity as diversity, report as report, zero_rate as zero_rate
    from .model_pruning import PrunedModel as PrunedModel, prune as prune
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
    from .updates import (
        AdmmUpdate as AdmmUpdate,
        Refinement as Refinement,
        Update as Update,
        admm as admm,
        reconstruct as reconstruct,
        refine as refine,
    )

__version__ = "0.1.0"

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "patterns": (
            "NM",
            "VNM",
            "Block",
            "Budget",
            "Channels",
            "DoublePruned",
            "Hybrid",
            "Pattern",
            "PatternError",
            "Unstructured",
            "parse",
        ),
        "patterns.errors": ("MasksmithError",),
        "_errors": (
            "InfeasibleError",
            "MissingExtraError",
            "PruningError",
            "ScoresError",
            "SolverError",
            "UpdateError",
            "VerificationError",
            "WeightError",
        ),
        "scores": ("magnitude", "pfp", "ria", "sampling_bound", "sipp", "sparsegpt", "taylor", "wanda"),
        "patterns.conversion": ("choose_n",),
        "model_pruning.whole_model": ("prune",),
        "model_pruning.report": ("PrunedModel",),
        "measures": ("zero_rate", "report", "diversity"),
        "permutation": ("Permutation", "permute"),
        "allocation": ("Allocation", "allocate"),
        "calibration": ("Calibration", "calibrate"),
        "_panels": ("Panel", "PanelAnswer"),
        "_solution": ("Solution", "Status"),
        "_solve": ("solve", "solve_many"),
        "_verify.verify": ("Verdict", "verify"),
        "_warm_up": ("warm_up",),
        "solvers.auto": ("Auto",),
        "solvers.base": ("Solver",),
        "solvers.enumerate": ("Enumerate",),
        "solvers.exact": ("Exact",),
        "solvers.greedy": ("Greedy",),
        "solvers.min_cost_flow": ("MinCostFlow",),
        "solvers.sinkhorn": ("Sinkhorn",),
        "solvers.top_k": ("TopK",),
        "updates": ("AdmmUpdate", "Refinement", "Update", "admm", "reconstruct", "refine"),
    },
    extras=EXTRAS,
)
