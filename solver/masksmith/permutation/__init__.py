"""Channel permutations: orders of input and output channels under which a pattern keeps more score."""

from .permutation import Permutation as Permutation
from .search import permute as permute

__all__ = ["Permutation", "permute"]
