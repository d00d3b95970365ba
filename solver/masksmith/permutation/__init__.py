"""Channel permutations: orders of inputs and outputs under which a pattern keeps more."""

from .permutation import Permutation as Permutation
from .search import permute as permute

__all__ = ["Permutation", "permute"]
