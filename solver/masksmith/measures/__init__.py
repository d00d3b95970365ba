"""Measures: what a mask costs and what it is worth, in counts, bytes, bits and singular values."""

from masksmith.patterns import MaskCounts as MaskCounts, storage as storage

from ._counts import count as count
from ._diversity import Diversity as Diversity, diversity as diversity
from ._fill import fill as fill
from ._report import EFFICIENCY as EFFICIENCY, Report as Report, report as report
from ._spectrum import Spectrum as Spectrum, spectrum as spectrum
from ._stability import Change as Change, change as change

__all__ = [
    "EFFICIENCY",
    "Change",
    "Diversity",
    "MaskCounts",
    "Report",
    "Spectrum",
    "change",
    "count",
    "diversity",
    "fill",
    "report",
    "spectrum",
    "storage",
]
