"""Allocation: distributes one density budget over the layers of a model, so that the most score is kept."""

from .allocation import Allocation as Allocation, allocate as allocate
from .families import family_of as family_of, measure_from as measure_from
from .family import Decision as Decision, Family as Family

__all__ = ["Allocation", "Decision", "Family", "allocate", "family_of", "measure_from"]
