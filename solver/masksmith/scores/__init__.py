"""Scores: how much each weight matters, from the weights alone or from what data did to them.

Every score takes numpy arrays and torch tensors alike and gives back the weight's shape, library and device. All but
`ria` look at one row at a time, so a weight may be scored a few rows at a time; `ria` wants the column sums then.
"""

from .activations import column_sums as column_sums, ria as ria, wanda as wanda
from .by_layout import by_layout as by_layout
from .by_name import by_name as by_name
from .magnitude import magnitude as magnitude
from .sensitivity import SamplingBound as SamplingBound, pfp as pfp, sampling_bound as sampling_bound, sipp as sipp
from .sparsegpt import inverse_diagonal as inverse_diagonal, sparsegpt as sparsegpt
from .taylor import taylor as taylor

__all__ = [
    "SamplingBound",
    "by_layout",
    "by_name",
    "column_sums",
    "inverse_diagonal",
    "magnitude",
    "pfp",
    "ria",
    "sampling_bound",
    "sipp",
    "sparsegpt",
    "taylor",
    "wanda",
]
