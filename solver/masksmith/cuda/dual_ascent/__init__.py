"""Dual coordinate ascent on the device: the passes of `masksmith.kernels.dual_ascent`, number for number."""
