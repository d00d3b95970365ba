"""Masks, updated weights and benchmarks as they come back, and what is done with them."""
