"""Patterns (sets of allowed masks): their notation, grids, budgets, capacity, storage, and the solvers for them.

Standard library only, so that every process can import this package.
"""

from .block import Balance as Balance, Block as Block, Norm as Norm
from .budget import Budget as Budget, with_full_density as with_full_density
from .by_tensor import (
    PatternsByTensor as PatternsByTensor,
    TensorPatterns as TensorPatterns,
    UnmatchedSelectorError as UnmatchedSelectorError,
)
from .capacity import capacity as capacity
from .channels import Channels as Channels
from .double_pruned import DoublePruned as DoublePruned
from .errors import PatternError as PatternError
from .geometry import Grid as Grid, TileSpec as TileSpec, matrix_shape as matrix_shape
from .grammar import parse as parse
from .hybrid import Hybrid as Hybrid
from .nm import NM as NM
from .pattern import Axis as Axis, Fill as Fill, Pattern as Pattern, Ragged as Ragged, TilePattern as TilePattern
from .solver_support import solver_refusal as solver_refusal
from .storage import HybridCounts as HybridCounts, MaskCounts as MaskCounts, storage as storage
from .unstructured import Unstructured as Unstructured
from .vnm import VNM as VNM

__all__ = [
    "NM",
    "VNM",
    "Axis",
    "Balance",
    "Block",
    "Budget",
    "Channels",
    "DoublePruned",
    "Fill",
    "Grid",
    "Hybrid",
    "HybridCounts",
    "MaskCounts",
    "Norm",
    "Pattern",
    "PatternError",
    "PatternsByTensor",
    "Ragged",
    "TensorPatterns",
    "TilePattern",
    "TileSpec",
    "UnmatchedSelectorError",
    "Unstructured",
    "capacity",
    "matrix_shape",
    "parse",
    "solver_refusal",
    "storage",
    "with_full_density",
]
