"""Allocation: distributes one density budget over the layers of a model, so that the kept score is largest."""

from .allocation import Allocation as Allocation, allocate as allocate
from .allocator import Allocator as Allocator, Decision as Decision
from .choice import allocator_for as allocator_for, measure_from as measure_from

__all__ = ["Allocation", "Decision", "Allocator", "allocate", "allocator_for", "measure_from"]
