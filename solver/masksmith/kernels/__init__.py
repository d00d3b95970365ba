"""Compiled CPU kernels, one folder per stage of the solver; only `jit` imports numba."""
