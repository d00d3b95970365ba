"""Locks on devices: searches share one, a benchmark has it alone."""
