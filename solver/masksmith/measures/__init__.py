"""Measures of masks: counts, storage bytes, mask diversity, changes and singular values."""

from masksmith.patterns import MaskCounts as MaskCounts, storage as storage

from .counts import count as count
from .diversity import Diversity as Diversity, diversity as diversity
from .fill import fill as fill
from .report import EFFICIENCY as EFFICIENCY, Report as Report, report as report
from .spectrum import Spectrum as Spectrum, spectrum as spectrum
from .stability import Change as Change, change as change
from .zeros import zero_rate as zero_rate

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
    "zero_rate",
]
