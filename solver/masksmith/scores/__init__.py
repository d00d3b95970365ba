"""Scores: importance of each weight, from the weights alone or with statistics of calibration data.

Every score accepts numpy arrays and torch tensors and returns the weight's shape, library and device. Most scores treat
rows independently, so a weight may be scored a few rows at a time. The exceptions are `ria`, which then needs the
column sums, `pfp`, and `taylor` with groups that contain several rows.
"""

from .activations import column_sums as column_sums, ria as ria, wanda as wanda
from .by_layout import by_layout as by_layout
from .by_name import by_name as by_name
from .magnitude import magnitude as magnitude
from .operands import (
    ScoreUnderflowError as ScoreUnderflowError,
    StatisticError as StatisticError,
    has_normal_score as has_normal_score,
    underflow_allowed as underflow_allowed,
)
from .sensitivity import SamplingBound as SamplingBound, pfp as pfp, sampling_bound as sampling_bound, sipp as sipp
from .sparsegpt import inverse_diagonal as inverse_diagonal, sparsegpt as sparsegpt
from .taylor import taylor as taylor

__all__ = [
    "SamplingBound",
    "ScoreUnderflowError",
    "StatisticError",
    "by_layout",
    "by_name",
    "column_sums",
    "has_normal_score",
    "inverse_diagonal",
    "magnitude",
    "pfp",
    "ria",
    "sampling_bound",
    "sipp",
    "sparsegpt",
    "taylor",
    "underflow_allowed",
    "wanda",
]
