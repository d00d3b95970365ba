"""Bounds: one table of limits of what clients may use, and the enforcement of those on memory and connections."""
