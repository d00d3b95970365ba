"""Shortest augmenting paths on CUDA devices, compiled from the CPU kernels."""
