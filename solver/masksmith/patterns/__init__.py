"""Patterns: which masks are allowed. Standard library only, so that every process can read them."""

from ._block import Balance as Balance, Block as Block, Norm as Norm
from ._budget import Budget as Budget, unshared as unshared
from ._capacity import capacity as capacity
from ._channels import Channels as Channels
from ._double import DoublePruned as DoublePruned
from ._errors import PatternError as PatternError
from ._geometry import Grid as Grid, TileSpec as TileSpec, matrix_shape as matrix_shape
from ._grammar import parse as parse
from ._nm import NM as NM
from ._pattern import (
    Axis as Axis,
    Fill as Fill,
    Pattern as Pattern,
    Ragged as Ragged,
    TilePattern as TilePattern,
)
from ._solvers import solver_refusal as solver_refusal
from ._storage import MaskCounts as MaskCounts, storage as storage
from ._unstructured import Unstructured as Unstructured
from ._vnm import VNM as VNM

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
    "MaskCounts",
    "Norm",
    "Pattern",
    "PatternError",
    "Ragged",
    "TilePattern",
    "TileSpec",
    "Unstructured",
    "capacity",
    "matrix_shape",
    "parse",
    "solver_refusal",
    "storage",
    "unshared",
]
