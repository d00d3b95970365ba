"""Certificate kernel for CUDA devices."""
