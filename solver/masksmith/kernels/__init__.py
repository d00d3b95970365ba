"""Compiled kernels; numba enters through `jit` alone."""
