"""Dual coordinate ascent on CUDA devices; every number equals that of `masksmith.kernels.dual_ascent`."""
